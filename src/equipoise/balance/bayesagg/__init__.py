"""BayesAgg-MTL: task gradients of the features as random variables, aggregated by their inverse variance.

``gaussian.py``       a Gaussian over a linear head's parameters, kept as precision and shift
``likelihoods.py``    what a head's loss says of its parameters, for squared errors, classes and yes-or-no answers
``moments.py``        mean and variance of a sample's gradient by the features, exact or from draws
``aggregate.py``      one direction from the means and variances of all tasks
``heads.py``          the linear heads in a model, and whether a loss is theirs
``bayesagg_mtl.py``   the balancer
"""

from equipoise.balance.bayesagg.bayesagg_mtl import BayesAggMTL

__all__ = ["BayesAggMTL"]
