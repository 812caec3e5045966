"""Mean and standard deviation of a score over runs that differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from dasac_jax.reporting import tables


class Spread(NamedTuple):
    """Mean and sample standard deviation (n − 1) of scores in 0..1, and how many there were.

    mean: None where no run has a score. deviation: None where fewer than two have one: a single
    run says nothing of how far others would lie from it.
    """

    mean: float | None
    deviation: float | None
    count: int


def of(scores: Iterable[float | None]) -> Spread:
    """The spread of the scores that are there; None and nan are left out."""
    there = [x for x in scores if x is not None and not math.isnan(x)]
    return Spread(
        fmean(there) if there else None, stdev(there) if len(there) > 1 else None, len(there)
    )


def text(spread: Spread, *, digits: int = 1, sign: Literal["", "+"] = "") -> str:
    """As in "42.5 ± 0.8", in %, without the deviation where there is none."""
    shown = tables.percent(spread.mean, digits=digits, sign=sign)
    if spread.deviation is None:
        return shown
    return f"{shown} ± {tables.percent(spread.deviation, digits=digits)}"
