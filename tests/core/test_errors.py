"""Errors on their way from a worker to the driver."""

from __future__ import annotations

import inspect
import pickle

import pytest

from raygrid.core import errors
from raygrid.core.errors import DivergedError, RaygridError, SpecErrors, StoreError

MADE: list[BaseException] = [
    DivergedError(3, float("inf"), "noise", "its sum"),
    SpecErrors({"unknown attack 'a'": None, "unknown defense 'b'": None}),
    StoreError("the disk is full", passing=True),
]
"""Those that are made of more than a message."""
KINDS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]
RAISED = [cls for cls in KINDS if issubclass(cls, BaseException)]


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_every_error_comes_out_of_a_pickle_as_it_went_in(kind: type[BaseException]) -> None:
    assert issubclass(kind, RaygridError) or not issubclass(kind, Exception)
    made = next((error for error in MADE if type(error) is kind), None) or kind("a b; c")
    sent = pickle.loads(pickle.dumps(made))
    assert type(sent) is kind
    assert (str(sent), vars(sent)) == (str(made), vars(made))
