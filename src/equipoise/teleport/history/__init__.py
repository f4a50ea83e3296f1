"""What becomes of the optimizer's moving averages when the parameters have jumped.

An optimizer such as Adam remembers gradients of the trajectory so far. After a teleport that memory is of another place. COST
keeps a share σ of it (eq. 12-13). :mod:`~equipoise.teleport.history.averages` knows what each torch optimizer remembers;
the other files each do one thing with it.
"""

from equipoise.teleport.history.blend import blend
from equipoise.teleport.history.discount import discount, reset
from equipoise.teleport.history.similarity import similarity

__all__ = ["blend", "discount", "reset", "similarity"]
