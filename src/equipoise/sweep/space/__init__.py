"""What is swept.

``dimensions.py``  one option: a range, a logarithmic range, whole numbers, choices
``weights.py``     the weights of the tasks, on the simplex
``defaults.py``    ranges for those who give none
``space.py``       all dimensions of a method, and the method that a point of the space stands for
"""

from equipoise.sweep.space.dimensions import Choices, Dimension, Range, read_dimension, read_sweep
from equipoise.sweep.space.space import Space
from equipoise.sweep.space.weights import Weights

__all__ = ["Choices", "Dimension", "Range", "Space", "Weights", "read_dimension", "read_sweep"]
