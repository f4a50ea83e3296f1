"""LDC-MTL: control of the discrepancy between losses as a bilevel problem (the LDC-MTL paper)."""

from equipoise.balance.ldc.ldc_mtl import LDCMTL, LDCReport
from equipoise.balance.ldc.router import mlp_router

__all__ = ["LDCMTL", "LDCReport", "mlp_router"]
