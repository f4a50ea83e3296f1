"""Evaluating a function at many points: here, in batches, in threads, in processes; failures become answers."""

from equipoise.blackbox.evaluation.evaluator import Evaluator, evaluator
from equipoise.blackbox.evaluation.failures import Answer, Failures

__all__ = ["Answer", "Evaluator", "Failures", "evaluator"]
