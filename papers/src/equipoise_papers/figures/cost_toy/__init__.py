"""Figure 6 of the COST paper: balancers on the two-task toy problem, alone and with COST on top.

The trajectories of all balancers, starting points and seeds are one batch, which takes the place of some hours of single runs;
what is computed in each row is what :class:`~equipoise.MultiTaskOptimizer` with :class:`~equipoise.teleport.COST` does.
"""
