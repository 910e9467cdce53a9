"""Protocols: one class a source. Importing this package registers all of them."""

from raygrid.protocols import toxic as toxic
from raygrid.protocols.papers import PROTOCOLS as PROTOCOLS
from raygrid.protocols.papers import Protocol as Protocol
