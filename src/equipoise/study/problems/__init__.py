"""The problems that come with the library, and how a user's own is found."""

from equipoise.study.problems.find import find_problem, problems

__all__ = ["find_problem", "problems"]
