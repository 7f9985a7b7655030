"""Rows -> figures with intervals, as text and as JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
SHOWN = 60  # misses in the text


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the 95% interval of a share (Wilson 1927)."""
    if not count:
        return 0.0, 1.0
    p, d = hits / count, 1 + z * z / count
    half = z * ((p * (1 - p) + z * z / (4 * count)) / count) ** 0.5
    return max(0.0, (p + z * z / (2 * count) - half) / d), (p + z * z / (2 * count) + half) / d


def share(rows: Iterable[Row], test: Callable[[Row], bool]) -> dict[str, Any]:
    """Returns how many rows pass, of how many, and the interval."""
    found = [bool(test(r)) for r in rows]
    low, high = wilson(sum(found), len(found))
    value = round(sum(found) / len(found), 3) if found else None
    return {"share": value, "of": len(found), "interval": [round(low, 3), round(high, 3)]}


def summary(rows: list[Row]) -> dict[str, Any]:
    """Returns the figures of each half that has rows."""
    halves = sorted({r["half"] for r in rows})
    return {half: _half([r for r in rows if r["half"] == half]) for half in halves}


def _half(rows: list[Row]) -> dict[str, Any]:
    faulty, healthy = [r for r in rows if not r["healthy"]], [r for r in rows if r["healthy"] and r["healthy_score"]]
    ratios = sorted(r["ratio"] for r in rows if r["ratio"] is not None)
    found: dict[str, Any] = {"cases": len(faulty), "healthy runs": len(healthy)}
    found["left out, below their floor"] = [r["name"] for r in rows if r["healthy"] and not r["healthy_score"]]
    if faulty:
        found |= {
            "detection": share(faulty, lambda r: r["detected"]),
            "symptom": share(faulty, lambda r: r["symptom"]),
            "cause first": share(faulty, lambda r: r["first"]),
            "cause among first two": share(faulty, lambda r: r["first_two"]),
            "cause first, equals count": share(faulty, lambda r: r["first_or_equal"]),
            "place": share(faulty, lambda r: r["place"]),
            "early, of those that bite early": share([r for r in faulty if r["bites_early"]], lambda r: (r["step"] or 9) <= 0.1),
            "recognised by": {str(k): sum(r["step"] == k for r in faulty) for k in (0.05, 0.1, 0.2, 0.5, 1.0, None)},
            "by cause": _by_cause(faulty),
        }
    if healthy:
        codes = Counter(code for r in healthy for code in set(r["codes"]))
        found |= {"false alarms": share(healthy, lambda r: r["detected"]), "false alarms by rule": dict(codes.most_common())}
    found["seconds"] = {"median": statistics.median(r["seconds"] for r in rows)}
    if ratios:
        found["ratio to plain training"] = {"median": statistics.median(ratios), "95%": ratios[int(0.95 * (len(ratios) - 1))]}
    found["others"] = _others(faulty, healthy)
    return found


def _by_cause(faulty: list[Row]) -> dict[str, Any]:
    found = {}
    for cause in sorted({r["cause"] for r in faulty}):
        mine = [r for r in faulty if r["cause"] == cause]
        counts = {key: sum(r[key] for r in mine) for key in ("detected", "symptom", "first", "first_two", "first_or_equal", "place")}
        said = Counter(r["causes"][0] if r["causes"] else "nothing" for r in mine if not r["first"])
        found[cause] = {"cases": len(mine), **counts, "said instead": dict(said)}
    return found


def _others(faulty: list[Row], healthy: list[Row]) -> dict[str, Any]:
    names = list((faulty or healthy)[0]["others"])
    found = {}
    for name in names:
        causes = [r for r in faulty if r["others"][name]["names_causes"]]
        found[name] = {
            "detection": share(faulty, lambda r, n=name: r["others"][n]["fired"]),  # type: ignore[misc]
            "false alarms": share(healthy, lambda r, n=name: r["others"][n]["fired"]),  # type: ignore[misc]
            "cause named": share(causes, lambda r, n=name: r["cause"] in r["others"][n]["causes"]),  # type: ignore[misc]
        }
    return found


def text(found: dict[str, Any], rows: list[Row]) -> str:
    """Returns the figures as lines."""
    return "\n".join(line for half, figures in found.items() for line in _lines(half, figures, [r for r in rows if r["half"] == half]))


def _lines(half: str, found: dict[str, Any], rows: list[Row]) -> list[str]:
    lines = ["", f"== {half}: {found['cases']} cases, {found['healthy runs']} healthy runs"]
    lines += [f"left out, below its floor: {name}" for name in found["left out, below their floor"]]
    lines += [f"{name:34} {_shown(value)}" for name, value in found.items() if isinstance(value, dict) and "interval" in value]
    if "recognised by" in found:
        lines.append(f"{'recognised by (share of steps)':34} " + ", ".join(f"{k}: {v}" for k, v in found["recognised by"].items()))
    if found.get("false alarms by rule"):
        lines.append(f"{'false alarms by rule':34} " + ", ".join(f"{k} {v}" for k, v in found["false alarms by rule"].items()))
    lines.append(f"{'seconds':34} median {found['seconds']['median']:.1f}")
    if ratio := found.get("ratio to plain training"):
        lines.append(f"{'ratio to plain training':34} median {ratio['median']:.2f}, 95%: {ratio['95%']:.2f}")
    lines += ["", f"{'re-stated thresholds of others':34} {'detection':28} {'false alarms':28} cause named"]
    for name, value in found["others"].items():
        lines.append(f"{name:34} {_shown(value['detection']):28} {_shown(value['false alarms']):28} {_shown(value['cause named'])}")
    lines += _cause_lines(found.get("by cause", {})) + _misses(rows)
    return lines


def _cause_lines(causes: dict[str, Any]) -> list[str]:
    if not causes:
        return []
    lines = ["", f"{'cause':30} cases  symptom  first  two  equal  place  said instead"]
    for cause, c in causes.items():
        said = ", ".join(f"{k} {v}" for k, v in c["said instead"].items())
        counts = f"{c['cases']:5} {c['symptom']:8} {c['first']:6} {c['first_two']:4} {c['first_or_equal']:6} {c['place']:6}"
        lines.append(f"{cause:30} {counts}  {said}")
    return lines


def _misses(rows: list[Row]) -> list[str]:
    missed = [r for r in rows if not r["healthy"] and not (r["first"] and r["symptom"])]
    alarms = [r for r in rows if r["healthy"] and r["healthy_score"] and r["detected"]]
    lines = ["", "misses"] if missed else []
    lines += [f"  {r['name']}: {', '.join(r['codes']) or 'no finding'}; causes {', '.join(r['causes']) or 'none'}" for r in missed[:SHOWN]]
    lines += ["", "false alarms"] if alarms else []
    return lines + [f"  {r['name']}: {', '.join(r['codes'])}; causes {', '.join(r['causes']) or 'none'}" for r in alarms]


def _shown(value: dict[str, Any]) -> str:
    if value["share"] is None:
        return "-"
    return f"{value['share']:.3f} ({value['interval'][0]:.3f} - {value['interval'][1]:.3f}, n {value['of']})"


def write(path: Path, command: str, found: dict[str, Any], rows: list[Row]) -> None:
    """Writes figures and rows, a row a line."""
    head = {"command": command, "torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    parts = [f" {json.dumps(k)}: {json.dumps(v)}," for k, v in head.items()]
    body = ",\n".join(f"  {json.dumps({k: v for k, v in r.items() if k != 'others'})}" for r in rows)
    path.write_text("\n".join(["{", *parts, f' "figures": {json.dumps(found, indent=1)},', ' "rows": [', body, " ]", "}"]) + "\n")
