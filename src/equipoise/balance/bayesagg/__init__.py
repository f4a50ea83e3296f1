"""BayesAgg-MTL: task gradients of the features as random variables, aggregated by their inverse variance.

``likelihoods.py``   the linear heads in a model, and what their losses say of their parameters
``moments.py``       a Gaussian over these, moments of a sample's gradient by the features, one direction from them
``bayesagg_mtl.py``  the balancer
"""

from equipoise.balance.bayesagg.bayesagg_mtl import BayesAggMTL

__all__ = ["BayesAggMTL"]
