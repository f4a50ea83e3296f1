"""Multi-task actor-critic (thesis, eq. 3.38 to 3.40): soft actor-critic (SAC) with one critic and one policy for all tasks.

α is the critic, ω the policy. The upper objectives are the tasks' soft Bellman residuals, the lower level is the sum of the
policy's losses. A balancer combines the critic's m gradients where one critic alone would follow their sum.
"""

from equipoise_papers.applications.actor_critic.alternating import AlternatingUpdate
from equipoise_papers.applications.actor_critic.learner import problem
from equipoise_papers.applications.actor_critic.networks import Critic, Policy
from equipoise_papers.applications.actor_critic.replay import Replay, Transitions
from equipoise_papers.applications.actor_critic.run import Outcome, evaluate, run
from equipoise_papers.applications.actor_critic.settings import Settings
from equipoise_papers.applications.actor_critic.show import show
from equipoise_papers.applications.actor_critic.tasks import Shape, pendulums, shape_of

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
