"""Defenses: one file each. Importing this package registers all of them."""

from raygrid.defenses import grayscale as grayscale
from raygrid.defenses import none as none
from raygrid.defenses import standard as standard
from raygrid.defenses.base import DEFENSES as DEFENSES
