"""Evaluating a function at many points: here, in batches, in threads, in processes; failures become answers."""

from equipoise.blackbox.evaluation.evaluator import Answer, Evaluator, Failures, evaluator

__all__ = ["Answer", "Evaluator", "Failures", "evaluator"]
