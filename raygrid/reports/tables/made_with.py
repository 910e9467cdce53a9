"""What the rows of one cell share: all that decides a trial but its seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raygrid.core.budget import Budget
from raygrid.core.hashing import key_of
from raygrid.core.registry import cached
from raygrid.literature.lookup import METHOD_REGISTRIES
from raygrid.nn.recipes import Recipe

SEED_PARTS = ("seed", "priors", "setup")
"""Parts of `Trial.resolved` that hang on the seed: a bridge is fitted to the seed's own poison."""
REGISTRIES = {registry.kind: registry for registry in METHOD_REGISTRIES}


def made_with(resolved: Mapping[str, Any]) -> str:
    """Names what `Trial.resolved` says of a row, but for its seed; empty if it says nothing.

    A field at its default counts as none, so that one which a method got later, and which rows
    from before do not have, is no difference.
    """
    if not resolved:
        return ""
    rule = resolved.get("setup") or {}
    setup = {name: value for name, value in rule.items() if name != "number"}
    kept = {name: _short(name, part) for name, part in resolved.items() if name not in SEED_PARTS}
    return key_of({**kept, "setup": setup})


def _short(kind: str, said: Any) -> Any:
    """A method, several of them, or the recipe, without the fields at their defaults."""
    if isinstance(said, list):
        return [_short(kind, one) for one in said]
    if not isinstance(said, dict):
        return said
    usual = _defaults(kind, str(said.get("id")))
    return {k: v for k, v in said.items() if k not in usual or _as_logged(v) != usual[k]}


@cached
def _defaults(kind: str, name: str) -> dict[str, Any]:
    """The defaults of a method's fields; none of one that is not here."""
    registry, cls = REGISTRIES.get(kind), Recipe if kind == "recipe" else None
    if registry is not None and name in registry:
        cls = registry[name]
    fields = () if cls is None else dataclasses.fields(cls)
    return {f.name: _as_logged(f.default) for f in fields if f.default is not dataclasses.MISSING}


def _as_logged(value: Any) -> Any:
    """A field's value as the row of a log has it."""
    if isinstance(value, Budget):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
