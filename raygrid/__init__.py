"""raygrid: one grid for availability poisoning.

`import raygrid as rg` offers the verbs `dataset, poison, purify, train, plan, run, results, table,
published`, the types that they take and give, and what a method of one's own is made of. The
names stand in `__init__.pyi` and load at their first use, so that the import itself needs neither
torch, Ray nor MLflow.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
