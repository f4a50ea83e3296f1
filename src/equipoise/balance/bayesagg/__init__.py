"""BayesAgg-MTL: task gradients of the features as random variables, aggregated by their inverse variance."""

from equipoise.balance.bayesagg.bayesagg_mtl import BayesAggMTL

__all__ = ["BayesAggMTL"]
