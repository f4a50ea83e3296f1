"""Multi-objective architecture search (thesis, eq. 3.35 to 3.37): accurate, robust, and of about L parameters.

α holds a logit for every operation on every edge of a cell, ω the weights of all operations. The lower level trains ω on
training images; the upper level looks at validation loss, loss on attacked validation images and the distance of the expected
number of parameters from L. With the first objective alone this is DARTS (Liu et al., 2019).
"""

from equipoise_papers.applications.architecture_search.cell import (
    OPERATIONS,
    FoundNetwork,
    SearchNetwork,
    chosen,
    edges,
    expected_parameters,
    number_of_parameters,
    operation,
    parameter_counts,
    size_loss,
)
from equipoise_papers.applications.architecture_search.run import METHODS, Outcome, run, show
from equipoise_papers.applications.architecture_search.search import Split, problem, search, split_digits
from equipoise_papers.applications.architecture_search.settings import Settings

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
