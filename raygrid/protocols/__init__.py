"""Protocols: one class a source. Importing this package registers all of them."""

from raygrid.protocols import papers as papers
from raygrid.protocols import quick as quick
from raygrid.protocols import toxic as toxic
from raygrid.protocols.base import PROTOCOLS as PROTOCOLS
from raygrid.protocols.base import Protocol as Protocol
