"""LDC-MTL: control of the discrepancy between losses as a bilevel problem (the LDC-MTL paper).

``total.py``    upper and lower level in one number, its derivatives by losses and shares σ; the double loop's lower level
``router.py``   what gives the outputs: a free vector, or a network that looks at the shared representation
``ldc_mtl.py``  the balancer
"""

from equipoise.balance.ldc.ldc_mtl import LDCMTL, LDCReport
from equipoise.balance.ldc.router import mlp_router

__all__ = ["LDCMTL", "LDCReport", "mlp_router"]
