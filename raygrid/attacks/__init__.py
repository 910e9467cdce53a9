"""Attacks: one file each. Importing this package registers all of them.

An attack changes training images (or labels) within its budget and never trains the victim. What
several share lies in `common/`. The rooms `learners`, `literature`, `trials`, `engine`, `reports`,
`reproduce`, `api` and `cli` import it; defenses never do. Start with `base.py`, then `lsp.py`, one
of the shortest.
"""

from raygrid.attacks import aap as aap
from raygrid.attacks import ar as ar
from raygrid.attacks import aue as aue
from raygrid.attacks import base_noise as base_noise
from raygrid.attacks import bullseye_polytope as bullseye_polytope
from raygrid.attacks import clbd as clbd
from raygrid.attacks import clean as clean
from raygrid.attacks import convex_polytope as convex_polytope
from raygrid.attacks import cp as cp
from raygrid.attacks import cuda as cuda
from raygrid.attacks import dc as dc
from raygrid.attacks import dune as dune
from raygrid.attacks import dvae_grow as dvae_grow
from raygrid.attacks import dvae_recon as dvae_recon
from raygrid.attacks import em as em
from raygrid.attacks import em_remrepo as em_remrepo
from raygrid.attacks import entf as entf
from raygrid.attacks import feature_collision as feature_collision
from raygrid.attacks import file as file
from raygrid.attacks import functional as functional
from raygrid.attacks import gue as gue
from raygrid.attacks import htbd as htbd
from raygrid.attacks import hypo as hypo
from raygrid.attacks import low_frequency as low_frequency
from raygrid.attacks import lsp as lsp
from raygrid.attacks import mifgsm as mifgsm
from raygrid.attacks import noise as noise
from raygrid.attacks import ntga as ntga
from raygrid.attacks import ops as ops
from raygrid.attacks import patch_dirty as patch_dirty
from raygrid.attacks import pgd as pgd
from raygrid.attacks import pil as pil
from raygrid.attacks import pue as pue
from raygrid.attacks import regions as regions
from raygrid.attacks import rem as rem
from raygrid.attacks import rem_apb as rem_apb
from raygrid.attacks import sem as sem
from raygrid.attacks import sep as sep
from raygrid.attacks import tap as tap
from raygrid.attacks import tp as tp
from raygrid.attacks import triples as triples
from raygrid.attacks import tue as tue
from raygrid.attacks import witches_brew as witches_brew
from raygrid.attacks import withheld as withheld
from raygrid.attacks.base import ATTACKS as ATTACKS
