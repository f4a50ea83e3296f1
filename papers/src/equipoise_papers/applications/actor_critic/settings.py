"""The numbers of the actor-critic example."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.errors import InputError
from equipoise_papers.applications import example

__all__ = ["ActorCriticSettings"]


@example(
    "Multi-task soft actor-critic (thesis, eq. 3.38 to 3.40) on Gymnasium's pendulum under several gravities.",
    quick={"seeds": (0,), "steps": 1000},
)
@dataclass(frozen=True)
class ActorCriticSettings:
    """Which runs, and the numbers of each.

    Attributes:
        balancers: of the critic's gradients.
        gravities: of the pendulums, one for each task, in m/s².
        seeds: of networks, environments and what is drawn.
        steps: environment steps of every task; one update of critic and policy each, once ``warm_up`` is over.
        warm_up: the first of them, with random actions and no updates.
        batch_size: transitions per task in an update.
        hidden: units of the two hidden layers of all networks.
        lr: of Adam on critic and policy.
        discount: γ.
        temperature: β_i, the entropy's weight, of every task; in units of scaled rewards. Where it is tuned, its start.
        tuning: whether every task's β_i is learned, such that the policy's entropy there comes to minus the number of actions.
        averaging: share of the new weights in the exponential moving average α̂, the target network.
        reward_scale: rewards are multiplied by it for learning; returns are reported without.
        capacity: transitions per task that are remembered.
        test_episodes: of every task in an evaluation.
        horizon: at most so many steps in an evaluation's episode.

    Raises:
        InputError: a number that cannot be used.
    """

    balancers: tuple[str, ...] = ("ls", "mgda")
    gravities: tuple[float, ...] = (4.0, 8.0, 12.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 2000
    warm_up: int = 300
    batch_size: int = 64
    hidden: int = 64
    lr: float = 2e-3
    discount: float = 0.97
    temperature: float = 0.1
    tuning: bool = True
    averaging: float = 0.01
    reward_scale: float = 0.1
    capacity: int = 10_000
    test_episodes: int = 10
    horizon: int = 200

    def __post_init__(self) -> None:
        for name in ("batch_size", "hidden", "capacity", "test_episodes", "horizon", "warm_up"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)}")
        if self.steps <= self.warm_up:
            raise InputError(f"steps must be more than warm_up, or nothing is learned; got {self.steps} and {self.warm_up}")
        if not 0 <= self.discount < 1:
            raise InputError(f"discount must be from 0 to below 1; got {self.discount}")
        if not 0 < self.averaging <= 1:
            raise InputError(f"averaging must be above 0 and at most 1; got {self.averaging}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature must be finite and at least 0; got {self.temperature}")
        if self.tuning and self.temperature == 0:
            raise InputError("tuning multiplies temperature, so it must start above 0; say --no-tuning for a fixed one of 0")
        for name in ("lr", "reward_scale"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be positive and finite; got {getattr(self, name)}")
