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
    "Budget": "raygrid.core.budget",
    "Card": "raygrid.core.registry",
    "DATASETS": "raygrid.datasets",
    "DEFENSES": "raygrid.defenses",
    "Grid": "raygrid.engine.grid",
    "Images": "raygrid.core.images",
    "LEARNERS": "raygrid.learners",
    "PROTOCOLS": "raygrid.protocols",
    "Part": "raygrid.core.spec",
    "Poison": "raygrid.core.images",
    "RaygridError": "raygrid.core.errors",
    "Result": "raygrid.trials.result",
    "Store": "raygrid.storage.store",
    "TrialSpec": "raygrid.core.spec",
    "plan": "raygrid.engine.grid",
    "run_grid": "raygrid.run",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raygrid' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
