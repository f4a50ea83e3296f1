"""Runnable examples of multi-objective bilevel problems beyond multi-task learning (thesis, section 3.8).

:mod:`.few_shot` learns an encoder from which heads learn quickly and robustly (eq. 3.34), :mod:`.architecture_search` looks for
accurate, robust and small networks (eq. 3.35 to 3.37), :mod:`.actor_critic` learns one critic for several control tasks
(eq. 3.38 to 3.40). Each is small enough to be read; ``equipoise example NAME`` runs it.

``settings.py`` of a folder declares what can be chosen, and with :data:`example` the command; ``run.py`` has
``make(settings, told)``, which returns a table. Nothing lists the examples by hand.
"""

from equipoise_papers.commands import Commands

__all__ = ["EXAMPLES", "example"]

EXAMPLES = Commands(
    "example",
    __name__,
    "Run an example of a bilevel problem with several upper objectives, and see what was traded off.",
    work="run:make",
)
example = EXAMPLES.add
