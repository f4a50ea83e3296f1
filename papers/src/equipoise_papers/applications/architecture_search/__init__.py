"""Multi-objective architecture search (thesis, eq. 3.35 to 3.37): accurate, robust, and of about L parameters.

α holds a logit for every operation on every edge of a cell, ω the weights of all operations. The lower level trains ω on
training images; the upper level looks at validation loss, loss on attacked validation images and the distance of the expected
number of parameters from L. With the first objective alone this is DARTS (Liu et al., 2019).
"""
