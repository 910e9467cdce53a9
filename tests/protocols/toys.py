"""What the tests of protocols share."""

from __future__ import annotations


class Evil:
    """An object whose pickle runs code where it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise AssertionError('it ran')",)
