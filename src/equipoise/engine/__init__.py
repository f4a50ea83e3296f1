"""The gradient engine: reads the autograd graph, makes task gradients and their Gramian, and fills ``.grad``."""
