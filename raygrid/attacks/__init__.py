"""Attacks: one file each. Importing this package registers all of them."""

from raygrid.attacks import ar as ar
from raygrid.attacks import clean as clean
from raygrid.attacks import dc as dc
from raygrid.attacks import em as em
from raygrid.attacks import em_remrepo as em_remrepo
from raygrid.attacks import file as file
from raygrid.attacks import functional as functional
from raygrid.attacks import hypo as hypo
from raygrid.attacks import low_frequency as low_frequency
from raygrid.attacks import lsp as lsp
from raygrid.attacks import mifgsm as mifgsm
from raygrid.attacks import noise as noise
from raygrid.attacks import ntga as ntga
from raygrid.attacks import ops as ops
from raygrid.attacks import pgd as pgd
from raygrid.attacks import regions as regions
from raygrid.attacks import rem as rem
from raygrid.attacks import rem_apb as rem_apb
from raygrid.attacks import sep as sep
from raygrid.attacks import tap as tap
from raygrid.attacks import withheld as withheld
from raygrid.attacks.base import ATTACKS as ATTACKS
