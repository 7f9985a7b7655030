"""A report -> the file of its findings that are accepted, and a later report without them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from evengrad.causes import folded, root_causes
from evengrad.errors import InputError
from evengrad.report import Report
from evengrad.types import SEVERITIES, Finding

SCHEMA = "evengrad/baseline/1"
_FIELDS = {"code": str, "severity": str, "where": list, "message": str}


@dataclass(frozen=True)
class Accepted:
    """A finding that somebody has looked at and decided to live with; the message is for who reads the file."""

    code: str
    severity: str
    where: frozenset[str]
    message: str

    def covers(self, finding: Finding) -> bool:
        """True for a finding of the same rule, no stronger, and at no other place."""
        weaker = SEVERITIES.index(finding.severity) >= SEVERITIES.index(self.severity)
        return finding.code == self.code and weaker and self.where.issuperset(finding.where)


def read_baseline(path: Path) -> tuple[Accepted, ...]:
    """Reads what `write_baseline` wrote.

    Raises:
        InputError: if there is no such file, or it is damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r:.40}, expected {SCHEMA!r}")
        return tuple(_accepted(entry) for entry in document["accepted"])
    except FileNotFoundError:
        raise InputError(f"there is no baseline {str(path)!r}. Accept what is found now with --write-baseline {path}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"the baseline {str(path)!r} cannot be read ({what}). Restore it, or accept what is found now with --write-baseline {path}"
        ) from error


def write_baseline(path: Path, findings: Iterable[Finding]) -> int:
    """Accepts these findings: writes them to `path`, whole or not at all, in place of what is there; returns their number.

    Raises:
        InputError: if the file cannot be written.
    """
    entries = [{"code": f.code, "severity": f.severity, "where": sorted(f.where), "message": f.message} for f in findings]
    entries.sort(key=lambda e: (e["code"], e["where"]))
    text = json.dumps({"schema": SCHEMA, "accepted": entries}, indent=2, ensure_ascii=False) + "\n"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"the baseline {str(path)!r} cannot be written: {error.strerror}. Give another place") from error
    return len(entries)


def without(report: Report, accepted: Iterable[Accepted], name: str) -> Report:
    """Returns the report without the accepted findings; it says so, with the name of the baseline, under what was not looked at."""
    held = tuple(accepted)
    hidden = [f for f in report.findings if any(a.covers(f) for a in held)]
    if not hidden:
        return report
    findings = folded([f for f in report.findings if f not in hidden])
    codes = {f.code for f in findings}
    gone = {f.code for f in hidden} - codes
    told = "; ".join(f"{f.code} at {f.where[0]}" if f.where else f.code for f in hidden)
    return replace(
        report,
        findings=findings,
        causes=root_causes(findings),
        interventions=tuple(i for i in report.interventions if i.code in codes),
        proposals=report.proposals if findings else (),
        checked=tuple(c for c in report.checked if c not in gone),  # it did not find nothing
        skipped=report.skipped | {"accepted findings": f"{len(hidden)} in {name}: {told}"},
    )


def _accepted(entry: dict[str, object]) -> Accepted:
    for name, kind in _FIELDS.items():
        if not isinstance(entry[name], kind):
            raise ValueError(f"{name} is {entry[name]!r:.40}")
    code, severity, where, message = (entry[name] for name in _FIELDS)
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity!r:.40}")
    assert isinstance(where, list)
    return Accepted(str(code), str(severity), frozenset(map(str, where)), str(message))
