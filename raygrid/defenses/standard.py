"""Standard augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raygrid.core.literals import Scalar
from raygrid.core.registry import Card
from raygrid.defenses.base import DEFENSES, Defense


@DEFENSES.register("standard")
@dataclass(frozen=True, kw_only=True)
class Standard(Defense):
    """The dataset's own crop and flip (APBench's ST), a learner's own views otherwise.

    All hooks are the identity: every defense but `none` trains with standard augmentation.
    """

    idle: ClassVar[tuple[Mapping[str, Scalar], ...]] = ({},)

    card = Card(paper="Qin et al. 2024 (APBench), tables 3 to 5")
