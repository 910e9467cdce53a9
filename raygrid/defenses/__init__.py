"""Defenses: one file each. Importing this package registers all of them.

A defense sees neither the attack, nor clean data, nor the test set. The rooms `learners`,
`literature`, `trials`, `reports`, `reproduce` and `cli` import it; attacks never do. Start with
`base.py` (the hooks), then `grayscale.py` and `chain.py` (several defenses as one).
"""

from raygrid.defenses import advcl as advcl
from raygrid.defenses import affine_jitter as affine_jitter
from raygrid.defenses import at as at
from raygrid.defenses import avatar as avatar
from raygrid.defenses import bdr as bdr
from raygrid.defenses import bridgepure as bridgepure
from raygrid.defenses import coin as coin
from raygrid.defenses import color_normalize as color_normalize
from raygrid.defenses import cutmix as cutmix
from raygrid.defenses import cutout as cutout
from raygrid.defenses import dvae as dvae
from raygrid.defenses import dvae_detect as dvae_detect
from raygrid.defenses import early_stopping as early_stopping
from raygrid.defenses import eclipse as eclipse
from raygrid.defenses import gaussian as gaussian
from raygrid.defenses import grayscale as grayscale
from raygrid.defenses import iss as iss
from raygrid.defenses import jpeg as jpeg
from raygrid.defenses import mean_filter as mean_filter
from raygrid.defenses import median_filter as median_filter
from raygrid.defenses import mixup as mixup
from raygrid.defenses import none as none
from raygrid.defenses import op as op
from raygrid.defenses import random_blur as random_blur
from raygrid.defenses import random_noise as random_noise
from raygrid.defenses import rocl as rocl
from raygrid.defenses import sharpen_dct as sharpen_dct
from raygrid.defenses import standard as standard
from raygrid.defenses import udp as udp
from raygrid.defenses import ueraser_lite as ueraser_lite
from raygrid.defenses import ueraser_max as ueraser_max
from raygrid.defenses import vae as vae
from raygrid.defenses.base import DEFENSES as DEFENSES
