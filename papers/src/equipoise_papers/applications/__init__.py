"""Runnable examples of multi-objective bilevel problems beyond multi-task learning (thesis, section 3.8).

:mod:`.few_shot` learns an encoder from which heads learn quickly and robustly (eq. 3.34), :mod:`.architecture_search` looks for
accurate, robust and small networks (eq. 3.35 to 3.37), :mod:`.actor_critic` learns one critic for several control tasks
(eq. 3.38 to 3.40). Each is small enough to be read; ``equipoise example NAME`` runs it.
"""
