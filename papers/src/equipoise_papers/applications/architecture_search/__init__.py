"""Multi-objective architecture search (thesis, eq. 3.35 to 3.37): accurate, robust, and of about L parameters.

α holds a logit for every operation on every edge of a cell, ω the weights of all operations. The lower level trains ω on
training images; the upper level looks at validation loss, loss on attacked validation images and the distance of the expected
number of parameters from L. With the first objective alone this is DARTS (Liu et al., 2019).
"""

from equipoise_papers.applications.architecture_search.cell import FoundNetwork, SearchNetwork, chosen, edges
from equipoise_papers.applications.architecture_search.operations import OPERATIONS, operation, parameter_counts
from equipoise_papers.applications.architecture_search.run import METHODS, Outcome, run
from equipoise_papers.applications.architecture_search.search import Split, problem, search, split_digits
from equipoise_papers.applications.architecture_search.settings import Settings
from equipoise_papers.applications.architecture_search.show import show
from equipoise_papers.applications.architecture_search.size import expected_parameters, number_of_parameters, size_loss

__all__ = [
    "METHODS",
    "OPERATIONS",
    "FoundNetwork",
    "Outcome",
    "SearchNetwork",
    "Settings",
    "Split",
    "chosen",
    "edges",
    "expected_parameters",
    "number_of_parameters",
    "operation",
    "parameter_counts",
    "problem",
    "run",
    "search",
    "show",
    "size_loss",
    "split_digits",
]
