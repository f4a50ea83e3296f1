"""Robust few-shot learning (thesis, eq. 3.34): an encoder from which a head learns new classes from a few clean images.

α is the encoder. ω is a linear head, learned from scratch in every episode on the support set; both upper objectives, the loss
on clean and on perturbed query images, are differentiated through its steps. That makes it a problem for :class:`MOML`: every
episode is another lower-level problem that starts anew, whereas FORUM follows one ω from outer step to outer step.
"""
