"""pyproject.toml and the command line -> which rules run, with which thresholds, what is accepted and what fails."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evengrad.errors import InputError, unknown
from evengrad.types import SEVERITIES

if TYPE_CHECKING:
    from evengrad.rules import Rule

TABLE = "[tool.evengrad]"
_KEYS = ("select", "ignore", "fail-on", "baseline", "rules")
_RULE = re.compile(r"([^.=\s]+)\.([^.=\s]+)=(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is looked for.

    Attributes:
        select: Codes, or beginnings of codes, to look for; None means all.
        ignore: Codes, or beginnings of codes, to leave out.
        fail_on: Severity from which `check` and `diagnose` end with 1.
        thresholds: Code -> name of a threshold -> its value.
        baseline: File of findings that are accepted.
        file: The pyproject.toml that this comes from.
    """

    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    fail_on: str = "warning"
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    baseline: Path | None = None
    file: Path | None = None

    def rules(self) -> list[Rule]:
        """Returns the rules to run, with their thresholds."""
        from evengrad.judge import chosen_rules
        from evengrad.rules import discovered

        made = [discovered()[code](**values) for code, values in self.thresholds.items()]
        return chosen_rules(made, self.select, self.ignore)


def settings_near(place: Path) -> Settings:
    """Reads the table `[tool.evengrad]` of the nearest pyproject.toml that has one, in the folder of `place` or above it.

    Args:
        place: A file, or a folder.

    Raises:
        InputError: if a pyproject.toml on the way cannot be read, or a value in the table is of a wrong type.
        UnknownNameError: if a key, a code or a threshold in the table does not exist.
    """
    start = place.absolute()
    for folder in (start, *start.parents) if start.is_dir() else start.parents:
        file = folder / "pyproject.toml"
        table = _table(file) if file.is_file() else None
        if table is not None:
            return _read(table, file)
    return Settings()


def overridden(
    settings: Settings,
    *,
    select: Sequence[str] | None = None,
    ignore: Sequence[str] | None = None,
    fail_on: str | None = None,
    rules: Iterable[str] = (),
    baseline: Path | None = None,
) -> Settings:
    """Returns the settings with what the command line says in place of what the file says.

    Args:
        settings: What the file says.
        select: Codes, or beginnings of codes, to look for.
        ignore: Codes, or beginnings of codes, to leave out.
        fail_on: Severity from which it counts as failed.
        rules: Thresholds as `VAN001.max_lost_decades=3`; those of the file that are not named stay.
        baseline: File of findings that are accepted.

    Raises:
        InputError: if a threshold is not written so, or its value is of a wrong type.
        UnknownNameError: if a code, a threshold or the severity does not exist.
    """
    thresholds = {code: dict(values) for code, values in settings.thresholds.items()}
    for text in rules:
        code, name, value = _parsed(text)
        thresholds.setdefault(code, {})[name] = _threshold(code, name, value, f"--rule {text}")
    return replace(
        settings,
        select=_codes(select, "") if select else settings.select,
        ignore=_codes(ignore, "") if ignore else settings.ignore,
        fail_on=settings.fail_on if fail_on is None else _severity(fail_on, ""),
        thresholds=thresholds,
        baseline=settings.baseline if baseline is None else baseline,
    )


def _table(file: Path) -> dict[str, Any] | None:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{str(file)!r} cannot be read: {error}. Mend it: settings of evengrad are looked for in it") from error
    tool = document.get("tool", {})
    table = tool.get("evengrad") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise InputError(f"{str(file)!r}: tool.evengrad is {_shown(table)}; expected a table, {TABLE}")
    return table


def _read(table: Mapping[str, Any], file: Path) -> Settings:
    where = f"{file} {TABLE}"
    for key in table:
        if key not in _KEYS:
            raise unknown(f"key of {where}", key, _KEYS)
    given = table.get("rules", {})
    if not isinstance(given, dict) or not all(isinstance(values, dict) for values in given.values()):
        raise InputError(f"{where}: rules is {_shown(given)}; expected a table for each code, such as [tool.evengrad.rules.VAN001]")
    thresholds = {}
    for code, values in given.items():
        place = f"{file} [tool.evengrad.rules.{code}]"
        thresholds[code] = {name: _threshold(code, name, value, place) for name, value in values.items()}
        _codes([code], place, whole=True)
    baseline = table.get("baseline")
    if baseline is not None and not isinstance(baseline, str):
        raise InputError(f"{where}: baseline is {_shown(baseline)}; expected the name of a file")
    return Settings(
        select=_codes(table["select"], f"{where} select") if "select" in table else None,
        ignore=_codes(table.get("ignore", []), f"{where} ignore"),
        fail_on=_severity(table.get("fail-on", "warning"), f" in {where} fail-on"),
        thresholds=thresholds,
        baseline=None if baseline is None else file.parent / baseline,
        file=file,
    )


def _codes(given: object, where: str, *, whole: bool = False) -> tuple[str, ...]:
    from evengrad.rules import discovered

    if not isinstance(given, (list, tuple)) or not all(isinstance(x, str) for x in given):
        raise InputError(f'{where} is {_shown(given)}; expected a list of codes or beginnings of codes, such as ["VAN", "ACT002"]')
    known = discovered()
    for code in given:
        if not (code in known if whole else any(x.startswith(code) for x in known)):
            raise unknown(f"rule (in {where})" if where else "rule", code, known)
    return tuple(given)


def _severity(given: object, where: str) -> str:
    if not isinstance(given, str):
        raise InputError(f"the severity{where} is {_shown(given)}; expected one of {', '.join(SEVERITIES)}")
    if given not in SEVERITIES:
        raise unknown(f"severity{where}", given, SEVERITIES)
    return given


def _parsed(text: str) -> tuple[str, str, object]:
    found = _RULE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"--rule {text!r} is no threshold; expected CODE.NAME=VALUE, such as VAN001.max_lost_decades=3")
    code, name, value = found.groups()
    try:
        return code, name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return code, name, value


def _threshold(code: str, name: str, value: object, where: str) -> float:
    """Returns a threshold's value in the type that the rule's own has."""
    from evengrad.rules import discovered

    known = discovered()
    if code not in known:
        raise unknown(f"rule (in {where})", code, known)
    held = {f.name: f.default for f in fields(known[code])}
    if name not in held:
        raise unknown(f"threshold of {code} (in {where})", name, held)
    kind: type[Any] = type(held[name])
    if isinstance(value, bool) == (kind is bool) and isinstance(value, (int, float) if kind is float else kind):
        number: float = kind(value)
        if not math.isnan(number):  # nothing is above or below it
            return number
    wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, f"a {kind.__name__}")
    raise InputError(f"{where}: {name} is {_shown(value)}; expected {wanted}, such as {held[name]!r}, which it is by default")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
