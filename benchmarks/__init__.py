"""Benchmarks of equipoise, measured side by side with its peers: ``python -m benchmarks``.

Every table is a table of ratios: what is compared runs in turn, round after round, in one process, so that whatever else
the machine is doing meets all of it alike. Nothing here asserts a time.
"""

import os

# Read when NumPy and torch are first imported, so before anything else is. More threads would measure the thread pools.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
