"""Pickles of strangers, read without calling anything that they name."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from raygrid.core.lazy import np


def _scalar(dtype: Any, content: bytes) -> Any:
    """A numpy number from its bytes; what `numpy.core.multiarray.scalar` does for plain types."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError(f"refuses a number of type {dtype}")
    return np.frombuffer(content, dtype=dtype, count=1)[0]


@cache
def _array_parts() -> dict[str, Any]:
    """What stands in for the names in a pickle of an array."""
    return {
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
        "scalar": _scalar,
    }


class ArrayUnpickler(pickle.Unpickler):
    """Admits numbers and arrays of numbers and Python's plain containers, nothing else.

    A subclass may admit more: `admitted` maps (module, name) to what stands in for it, which
    must do nothing but hold data.
    """

    admitted: ClassVar[Mapping[tuple[str, str], Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.admitted:
            return self.admitted[module, name]
        if module.partition(".")[0] != "numpy" or name not in _array_parts():
            raise pickle.UnpicklingError(f"refuses {module}.{name}")
        return _array_parts()[name]

    @classmethod
    def read(cls, content: bytes, encoding: str = "ASCII") -> Any:
        """The value; raises whatever a malformed or unwelcome pickle makes it raise."""
        return cls(io.BytesIO(content), encoding=encoding).load()
