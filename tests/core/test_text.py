"""How numbers are said: one rounding wherever a person reads them."""

import math

import pytest

from raygrid.core.text import decimal, first_line, percent


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.6755, "67.6 %"), (0.8895, "89.0 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (None, "–")],
)
def test_a_five_behind_the_last_digit_is_rounded_up_as_papers_do(
    share: float | None, said: str
) -> None:
    assert percent(share) == said


@pytest.mark.parametrize("share", [-1e-9, -0.0, 1e-9])
def test_next_to_nothing_has_no_sign(share: float) -> None:
    assert percent(share, 2) == "0.00 %"


@pytest.mark.parametrize(
    ("text", "said"), [("one\ntwo", "one"), ("one", "one"), ("\ntwo", ""), ("", ""), (None, "")]
)
def test_the_first_line_of_a_text_is_empty_where_there_is_none(text: str | None, said: str) -> None:
    assert first_line(text) == said


def test_what_is_no_number_is_said_as_it_is() -> None:
    assert (decimal(math.nan, 2), decimal(math.inf, 2, 2)) == ("nan", "inf")
