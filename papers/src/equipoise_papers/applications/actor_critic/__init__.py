"""Multi-task actor-critic (thesis, eq. 3.38 to 3.40): soft actor-critic (SAC) with one critic and one policy for all tasks.

α is the critic, ω the policy. The upper objectives are the tasks' soft Bellman residuals, the lower level is the sum of the
policy's losses. A balancer combines the critic's m gradients where one critic alone would follow their sum.
"""

from equipoise_papers.applications.actor_critic.environments import Replay, Shape, Transitions, pendulums, shape_of
from equipoise_papers.applications.actor_critic.learner import AlternatingUpdate, Critic, Policy, problem
from equipoise_papers.applications.actor_critic.run import Outcome, evaluate, run, show
from equipoise_papers.applications.actor_critic.settings import Settings

__all__ = [
    "AlternatingUpdate",
    "Critic",
    "Outcome",
    "Policy",
    "Replay",
    "Settings",
    "Shape",
    "Transitions",
    "evaluate",
    "pendulums",
    "problem",
    "run",
    "shape_of",
    "show",
]
