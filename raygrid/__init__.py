"""raygrid: one grid for availability poisoning.

The public names load on first use, so that `import raygrid` needs neither torch, Ray nor MLflow.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ARCHITECTURES": "raygrid.architectures",
    "ATTACKS": "raygrid.attacks",
    "Budget": "raygrid.budget",
    "Card": "raygrid.registry",
    "DATASETS": "raygrid.datasets",
    "DEFENSES": "raygrid.defenses",
    "Grid": "raygrid.grid",
    "Images": "raygrid.data",
    "LEARNERS": "raygrid.learners",
    "PROTOCOLS": "raygrid.protocols",
    "Part": "raygrid.spec",
    "Poison": "raygrid.data",
    "RaygridError": "raygrid.errors",
    "Result": "raygrid.result",
    "Store": "raygrid.store",
    "TrialSpec": "raygrid.spec",
    "plan": "raygrid.grid",
    "run_grid": "raygrid.run",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raygrid' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
