"""Batched augmentation on the device: every image of a batch has its own parameters.

Drawing and applying are apart. `sample` draws parameters from a generator, `apply` is pure and
differentiable, so parameters can be replayed and gradients reach what was added to the images.
Attacks, defenses and learners import it. Start with `standards.py` and `crop_flip.py`.
"""

from raygrid.nn.augment.crop_flip import CropFlip as CropFlip
from raygrid.nn.augment.shift import affine_shift as affine_shift
from raygrid.nn.augment.shift import shift_by as shift_by
from raygrid.nn.augment.standards import STANDARD_NAMES as STANDARD_NAMES
from raygrid.nn.augment.standards import Augmentation as Augmentation
from raygrid.nn.augment.standards import flips as flips
from raygrid.nn.augment.standards import standard as standard
from raygrid.nn.augment.views import SharedViews as SharedViews
from raygrid.nn.augment.views import ViewParams as ViewParams
from raygrid.nn.augment.views import Views as Views
