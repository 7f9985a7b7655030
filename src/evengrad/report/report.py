"""Everything that was found, tried and left unlooked at -> one value that shows itself as text, JSON and HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evengrad.types import Finding, Intervention, Outcome, Proposal, Run, Trace


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of `check`, `diagnose` and `fix`.

    Attributes:
        run: What was looked at.
        findings: Findings, strongest first.
        causes: Root causes, strongest first, words of the vocabulary.
        interventions: What was tried on a copy, and whether it restored the signal.
        trainability: Probability in [0, 1] that some learning rate trains this network; None outside what was calibrated.
        proposals: Changes worth trying, best first.
        outcomes: Changes tried by training (only `fix`), in the order tried.
        chosen: The smallest set of changes that works (only `fix`).
        verdict: `fixed`, `improved`, `nothing_helped`, `nothing_wrong`, or "" where nothing was tried.
        patch: What to change in one's own code.
        checked: Codes of the rules that ran.
        skipped: Code or topic -> why it was not looked at.
        trace: The measurements behind it (before any change).
        after: The measurements with the chosen changes, or None.
    """

    run: Run
    findings: tuple[Finding, ...] = ()
    causes: tuple[str, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    trainability: float | None = None
    proposals: tuple[Proposal, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    chosen: tuple[Proposal, ...] = ()
    verdict: str = ""
    patch: str = ""
    checked: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    trace: Trace | None = None
    after: Trace | None = None

    def to_json(self) -> str:
        """Returns the report as one JSON document with a `schema` version; `Report.from_json` reads it back exactly."""
        from evengrad.report.json import dumps

        return dumps(self)

    @staticmethod
    def from_json(text: str) -> Report:
        """Reads what `to_json` wrote.

        Raises:
            InputError: if it is not such a document, or of a newer schema.
        """
        from evengrad.report.json import loads

        return loads(text)

    def to_html(self, path: str | Path) -> Path:
        """Writes the report as one HTML file that needs no network, and returns its path."""
        from evengrad.report.html import write

        return write(self, path)

    def _repr_html_(self) -> str:
        from evengrad.report.notebook import shown

        return shown(self)

    def __str__(self) -> str:
        from evengrad.report.text import plain

        return plain(self)
