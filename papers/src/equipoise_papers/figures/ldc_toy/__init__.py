"""Figure 1 of the LDC-MTL paper: equal weighting, MGDA, FAMO and LDC-MTL on the two-task toy problem."""
