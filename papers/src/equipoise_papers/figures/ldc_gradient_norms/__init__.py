"""Figures 3 and 7 of the LDC-MTL paper, on any problem: what lets the single loop drop the lower level's own solution."""
