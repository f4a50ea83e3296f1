"""Black-box multi-task prompt tuning (thesis, section 4.6.2): one prompt for all tasks of a model that can only be queried."""

from equipoise.blackbox.prompts.clip import TEMPLATE, CallableModel, Clip, PromptModel
from equipoise.blackbox.prompts.images import ImageSource, cached_features, office_tasks, read_office
from equipoise.blackbox.prompts.prompt import BlackBoxPrompt, QueryBudgetError
from equipoise.blackbox.prompts.tasks import PromptTask, split_indices

__all__ = [
    "TEMPLATE",
    "BlackBoxPrompt",
    "CallableModel",
    "Clip",
    "ImageSource",
    "PromptModel",
    "PromptTask",
    "QueryBudgetError",
    "cached_features",
    "office_tasks",
    "read_office",
    "split_indices",
]
