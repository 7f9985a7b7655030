"""Two reports -> what changed from the first to the second."""

from __future__ import annotations

from dataclasses import dataclass

from evengrad.report.report import Report
from evengrad.signals import gradient_gain


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two reports say differently.

    Attributes:
        gone: Codes of findings that only the first has.
        new: Codes of findings that only the second has.
        kept: Codes of findings that both have.
        gradient_gain: Factor of the gradient from layer to layer, before any step, in the first and the second; None where unknown.
        trainability: Chance to train in the first and the second; None where unknown.
    """

    gone: tuple[str, ...]
    new: tuple[str, ...]
    kept: tuple[str, ...]
    gradient_gain: tuple[float | None, float | None]
    trainability: tuple[float | None, float | None]

    def __str__(self) -> str:
        lines = [f"{word:5} {', '.join(codes) or 'none'}" for word, codes in (("gone", self.gone), ("new", self.new), ("kept", self.kept))]
        gains, chances = (" → ".join("?" if v is None else form.format(v) for v in pair) for pair, form in self._numbers())
        return "\n".join([*lines, f"gradient a layer {gains}", f"could it train?  {chances}"])

    def _numbers(self) -> tuple[tuple[tuple[float | None, float | None], str], ...]:
        return (self.gradient_gain, "×{:.2g}"), (self.trainability, "{:.0%}")


def compare(before: Report, after: Report) -> Comparison:
    """Compares two reports, such as those of a network before and after a change.

    Example:
        >>> print(eg.compare(eg.check(old, x, y, loss_fn), eg.check(new, x, y, loss_fn)))
    """
    codes = [tuple(dict.fromkeys(f.code for f in report.findings)) for report in (before, after)]
    gains = [None if report.trace is None else gradient_gain(report.trace) for report in (before, after)]
    return Comparison(
        gone=tuple(c for c in codes[0] if c not in codes[1]),
        new=tuple(c for c in codes[1] if c not in codes[0]),
        kept=tuple(c for c in codes[0] if c in codes[1]),
        gradient_gain=(gains[0], gains[1]),
        trainability=(before.trainability, after.trainability),
    )
