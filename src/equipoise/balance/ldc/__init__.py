"""LDC-MTL: control of the discrepancy between losses as a bilevel problem (the LDC-MTL paper).

``total.py``          upper and lower level in one number, and its derivatives by losses and by shares
``normalization.py``  losses made comparable first
``shares.py``         from a router's outputs to the shares σ of the tasks, and back
``router.py``         what gives the outputs: a free vector, or a network that looks at the shared representation
``representation.py`` catches that representation on its way through the model
``inner.py``          the double loop's approximate lower-level solution
``ldc_mtl.py``        the balancer
"""

from equipoise.balance.ldc.ldc_mtl import LDCMTL, LDCReport
from equipoise.balance.ldc.router import mlp_router

__all__ = ["LDCMTL", "LDCReport", "mlp_router"]
