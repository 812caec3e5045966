"""Classes that vanished from the target's predictions while adapting, or spread over them.

Each class's share of the pixels that are predicted on the target's training images, by the adapted
network against the baseline. No label has a part in it, so that it can be told of any run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dasac_jax.reporting import tables

ENTRY = "shares"
"""The entry of metrics.json: shares by class of "baseline" and "adapted", and what "changed"."""

CURVE = "share_teacher"
"""The metric whose curve shows how the shares changed."""

BEFORE, AFTER = "baseline", "adapted"

VANISHED = 1 / 5  # of the share before: less counts as vanished
GROWN = 5  # times the share before: more counts as grown
RARE = 0.05  # only a class with less of all pixels before can grow beyond measure
# Smaller shares are a matter of a few objects, and change manifold in good runs too.
LEAST_BEFORE, LEAST_GROWN = 0.001, 0.01

ADVICE = "docs/when_it_fails.md"


class Change(NamedTuple):
    """A class whose share of the predicted pixels, in 0..1, changed beyond measure."""

    name: str
    before: float
    after: float

    @property
    def what(self) -> str:
        """What happened to the class, in a word or two."""
        if self.after < self.before:
            return "vanished"
        if self.after > 100 * self.before:
            return "grew from next to nothing"
        return f"grew {self.after / self.before:.0f}-fold"

    def __str__(self) -> str:
        shares = f"{_percent(self.before)} → {_percent(self.after)} of predicted pixels"
        return f"{self.name}: {shares}: {self.what}; see {ADVICE}"


def changes(
    before: Mapping[str, float], after: Mapping[str, float], left_out: Collection[str] = ()
) -> list[Change]:
    """The classes that vanished, or that were rare and grew manifold.

    before, after: the share of the predicted pixels by class. left_out: classes of no concern.
    """
    found = []
    for name, was in before.items():
        now = after[name]
        vanished = was >= LEAST_BEFORE and now < VANISHED * was
        grown = was < RARE and now > GROWN * was and now >= LEAST_GROWN
        if name not in left_out and (vanished or grown):
            found.append(Change(name, was, now))
    return found


def entry(
    before: Sequence[float],
    after: Sequence[float],
    class_names: Sequence[str],
    left_out: Collection[str] = (),
) -> dict[str, Any]:
    """What metrics.json says of the shares (C,) of baseline and adapted network."""
    shares = {
        name: dict(zip(class_names, map(float, values), strict=True))
        for name, values in ((BEFORE, before), (AFTER, after))
    }
    found = changes(shares[BEFORE], shares[AFTER], left_out)
    changed = [{"class": x.name, BEFORE: x.before, AFTER: x.after, "what": x.what} for x in found]
    return {**shares, "changed": changed}


def of_result(result: Mapping[str, Any]) -> list[Change]:
    """The changes that a run's metrics.json tells of."""
    changed = result.get(ENTRY, {}).get("changed", ())
    return [Change(x["class"], x[BEFORE], x[AFTER]) for x in changed]


def table(result: Mapping[str, Any]) -> tables.Table | None:
    """The shares by class, in %; None where a run has none."""
    if ENTRY not in result:
        return None
    before, after = (result[ENTRY][name] for name in (BEFORE, AFTER))
    what = {change.name: change.what for change in of_result(result)}
    lines = [
        [name, tables.percent(was, digits=2), tables.percent(after[name], digits=2),
         what.get(name, "")]
        for name, was in before.items()
    ]  # fmt: skip
    return tables.Table(["class", BEFORE, AFTER, ""], lines, [])


def markdown(result: Mapping[str, Any], curve: str | None = None) -> Iterable[str]:
    """The parts of report.md; none where a run has no shares. curve: the file of a picture."""
    shown = table(result)
    if shown is None:
        return
    yield "## Predicted pixels by class"
    yield "Share of the pixels of the target's training images, in %."
    yield "\n".join(f"- **warning**: {change}" for change in of_result(result))
    yield tables.markdown(shown)
    if curve:
        yield f"![Each class's share of the predicted pixels while adapting]({curve})"


def _percent(share: float) -> str:
    return f"{100 * share:.{1 if share >= 0.001 or not share else 2}f} %"
