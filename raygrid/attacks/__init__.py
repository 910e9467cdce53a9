"""Attacks: one file each. Importing this package registers all of them."""

from raygrid.attacks import ar as ar
from raygrid.attacks import clean as clean
from raygrid.attacks import file as file
from raygrid.attacks import low_frequency as low_frequency
from raygrid.attacks import lsp as lsp
from raygrid.attacks import noise as noise
from raygrid.attacks import ops as ops
from raygrid.attacks import regions as regions
from raygrid.attacks import withheld as withheld
from raygrid.attacks.base import ATTACKS as ATTACKS
