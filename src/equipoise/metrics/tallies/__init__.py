"""Metrics that are gathered batch by batch: feed a tally with predictions and targets, then ask for its summary."""
