"""Study problems of the laboratory: rendered scenes, and the losses of dense prediction."""

from equipoise_papers.problems.dense_losses import depth_loss, normal_loss, semantic_loss
from equipoise_papers.problems.scenes import scenes_mtan_problem, scenes_problem, scenes_streets_problem

__all__ = ["depth_loss", "normal_loss", "scenes_mtan_problem", "scenes_problem", "scenes_streets_problem", "semantic_loss"]
