"""Attacks: one file each. Importing this package registers all of them."""

from raygrid.attacks import aap as aap
from raygrid.attacks import aue as aue
from raygrid.attacks import clean as clean
from raygrid.attacks import cp as cp
from raygrid.attacks import lsp as lsp
from raygrid.attacks import tp as tp
from raygrid.attacks import tue as tue
from raygrid.attacks.base import ATTACKS as ATTACKS
