"""What of a record does not depend on when and how fast its run was."""

import json


def timeless(record):
    kept = {key: record[key] for key in ("run", "epochs", "final", "parameters", "points")}
    kept["history"] = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in record["history"]]
    kept["teleports"] = [{key: value for key, value in attempt.items() if key != "seconds"} for attempt in record["teleports"]]
    return kept


def timeless_records(folder):
    """All records of a study's folder."""
    return [timeless(json.loads(path.read_text())) for path in sorted((folder / "runs").glob("*.json"))]
