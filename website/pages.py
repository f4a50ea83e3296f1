"""Which page of the repository is where on the site, and in which of its parts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PARTS", "ROOT", "Part", "copied", "moved", "places", "put"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Part:
    """A part of the site.

    Attributes:
        title: its name.
        promise: what it is for, in one line.
        pages: its pages in order, as files of the repository or, below ``=``, pages that are made.
    """

    title: str
    promise: str
    pages: tuple[str, ...]


PARTS = (
    Part(
        "Learn",
        "From a model and several losses to a balanced training.",
        (
            "docs/first-steps.md",
            "=gallery/index.md",
            "docs/choosing-a-method.md",
            "docs/your-own-loop.md",
            "docs/integrations/index.md",
            "docs/diagnosing.md",
            "docs/studies.md",
        ),
    ),
    Part(
        "Do",
        "One page per thing that you may want to do.",
        (
            "docs/loaders.md",
            "docs/logging.md",
            "docs/mixed-precision.md",
            "docs/distributed.md",
            "docs/clusters.md",
            "docs/sweeps.md",
            "docs/preferences.md",
            "docs/pareto-sets.md",
            "docs/task-weights.md",
            "docs/task-groups.md",
            "docs/black-box.md",
            "docs/data-sets.md",
            "docs/networks.md",
            "docs/metrics.md",
            "docs/your-own-balancer.md",
            "docs/your-own-delta.md",
            "docs/extending.md",
        ),
    ),
    Part(
        "In your trainer",
        "The same update under another roof.",
        (
            "docs/integrations/lightning.md",
            "docs/integrations/hugging-face.md",
            "docs/integrations/accelerate.md",
            "docs/integrations/language-models.md",
            "docs/integrations/trl.md",
            "docs/integrations/sharded.md",
            "docs/integrations/graphs.md",
            "docs/integrations/segmentation.md",
            "docs/integrations/physics.md",
        ),
    ),
    Part(
        "Understand",
        "What conflict is, and what each idea does about it.",
        (
            "docs/ideas.md",
            "docs/how-it-works.md",
            "docs/price.md",
            "docs/peers.md",
            "docs/teleporting.md",
            "docs/loss-discrepancy.md",
            "docs/bilevel-problems.md",
            "docs/learned-task-positions.md",
        ),
    ),
    Part(
        "Evidence",
        "What was measured, with the command and the commit.",
        (
            "=evidence.md",
            "docs/methods-on-digits.md",
            "docs/methods-on-qm9.md",
            "docs/qm9.md",
            "docs/cost-judged.md",
            "benchmarks/README.md",
            "papers/docs/reproducing.md",
            "papers/docs/scenes.md",
            "papers/docs/prompts.md",
            "papers/docs/bilevel-applications.md",
        ),
    ),
    Part(
        "Look up",
        "Methods, functions, commands, messages, words.",
        (
            "=methods/index.md",
            "=reference/index.md",
            "docs/command-line.md",
            "docs/what-is-refused.md",
            "docs/glossary.md",
            "docs/index.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "papers/README.md",
        ),
    ),
)
"""Every page of the guide is in one part; the site is not built while one is missing."""

_ELSEWHERE = {
    "docs/index.md": "guide.md",
    "benchmarks/README.md": "benchmarks.md",
    "papers/README.md": "papers/index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
}


def places() -> dict[str, str]:
    """Where on the site each Markdown page of the repository is.

    Raises:
        SystemExit: a page of the guide is in no part, or in two; or a part names a page that does not exist.
    """
    named = [page for part in PARTS for page in part.pages if not page.startswith("=")]
    guide = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "papers/docs").glob("*.md")]
    there = {path.relative_to(ROOT).as_posix() for path in guide}
    wrong = [page for page in named if not (ROOT / page).is_file()]
    wrong += [f"{page} (in no part)" for page in sorted(there - set(named))]
    wrong += [f"{page} (twice)" for page in sorted({page for page in named if named.count(page) > 1})]
    if wrong:
        raise SystemExit(f"website/pages.py does not fit the guide: {', '.join(wrong)}")
    return {page: _ELSEWHERE.get(page, page.replace("docs/", "", 1)) for page in (*named, "README.md")}


_EXAMPLE = re.compile(r"(?<=\]\()(?:\.\./)*gallery/(\w+)\.py(?=\))")
_METHOD = re.compile(r"(\[`([\w-]+)`\])\((?:\.\./)*src/equipoise/balance/[\w/]+\.py\)")
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[#)])")
_FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def moved(text: str, page: str, where: dict[str, str]) -> tuple[str, set[str]]:
    """A page's text with its links turned to where their targets are on the site, and the other files that it links to.

    Args:
        text: Markdown.
        page: its place in the repository.
        where: from :func:`places`.
    """
    files: set[str] = set()
    here = Path(where[page]).parent

    def turned(found: re.Match[str]) -> str:
        target = found[1]
        if "://" in target or target.startswith("mailto:"):
            return target
        file = os.path.normpath(Path(page).parent / target)
        if not (ROOT / file).is_file():
            return target  # not a link: code in a sentence
        if file not in where:
            files.add(file)
        place = where.get(file, file.replace("docs/", "", 1))
        return os.path.relpath(place, here)

    # A method's file is the place of all its facts in the repository; on the site that is its page.
    text = _METHOD.sub(lambda found: f"{found[1]}({os.path.relpath(f'methods/{found[2]}.md', here)})", text)
    text = _EXAMPLE.sub(lambda found: os.path.relpath(f"gallery/{found[1]}.md", here), text)
    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(turned, part) for part in parts), files


def put(file: Path, text: str) -> Path:
    """Writes a page, with the folders above it; one that is there already keeps its time, so that it is not rendered anew."""
    if not (file.is_file() and file.read_text(encoding="utf-8") == text):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return file


def copied(source: Path, target: Path) -> Path:
    """Copies a file likewise."""
    if not (target.is_file() and target.read_bytes() == source.read_bytes()):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return target
