"""Measured labels and step-0 signals -> the predictor and the thresholds that the package carries, and how good they are elsewhere.

The predictor is a logistic regression of degree 2 on six signals, fitted on `FITTED`; form and penalty were chosen there too (leave
one activation out). It is judged on the other data sets and widths, none of which had a say. Intervals are bootstraps over networks
(both seeds of a network are drawn together).

A rule warns from the smallest step at which at most 1% of the networks that train are flagged on the fitted sets, and calls it an
error from the smallest step at which none is; networks without the signal (no ReLU, fewer than four layers) do not count. What the
thresholds do on the other sets is reported beside.

    python -m benchmarks.trainability.calibrate
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from benchmarks.trainability import features as measured
from benchmarks.trainability import labels
from evengrad.signals.trainability import FEATURES, expand

RESULTS = Path(__file__).parents[1] / "results" / "trainability.json"
FIT = Path(__file__).parents[2] / "src" / "evengrad" / "signals" / "trainability.json"
PENALTY = 0.1
FITTED = ("digits", "circles")
DRAWS = 2000
RULES = {  # rule -> (column of the features file, sign, which networks have the signal at all)
    "VAN001": ("gradient_total", -1.0, "deep"),
    "EXP001": ("gradient_total", 1.0, "deep"),
    "ACT003": ("spread_total", 1.0, "deep"),
    "ACT001": ("max_dead", 1.0, "relu"),
    "ACT002": ("max_saturated", 1.0, "flat"),
    "INI001": ("scale_decades", 1.0, "deep"),
    "INI003": ("mean_ratio", 1.0, "deep"),
}
STEPS = {"decades": np.arange(0.5, 12.01, 0.25), "fraction": np.arange(0.3, 1.001, 0.05)}

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """The cells of one data set: signals (N, 6), trained or not (N,), what else was measured, and which network each is of."""

    x: Array
    y: npt.NDArray[np.bool_]
    extra: dict[str, Array]
    network: list[tuple[str, ...]]


def read() -> dict[str, Cells]:
    """Joins labels and features by cell."""
    with labels.RESULTS.open() as file:
        trained = labels.trained(list(csv.DictReader(file)))
    rows = defaultdict(list)
    with measured.RESULTS.open() as file:
        for row in csv.DictReader(file):
            cell = tuple(row[k] for k in labels.CELL)
            if cell in trained:
                rows[row["data"]].append((row, trained[cell]))
    return {
        data: Cells(
            np.array([[float(row[f]) for f in FEATURES] for row, _ in found]),
            np.array([label for _, label in found]),
            {name: np.array([float(row[name] or "nan") for row, _ in found]) for name in measured.EXTRA},
            [tuple(row[k] for k in labels.CELL[:-1]) for row, _ in found],
        )
        for data, found in rows.items()
    }


def auc_interval(cells: Cells, score: Array) -> list[float]:
    """AUC with a 95% interval over networks."""
    rng = np.random.default_rng(0)
    networks = sorted(set(cells.network))
    members = {n: [i for i, m in enumerate(cells.network) if m == n] for n in networks}
    draws = []
    for _ in range(DRAWS):
        index = np.concatenate([members[networks[k]] for k in rng.integers(0, len(networks), len(networks))])
        draws.append(roc_auc_score(cells.y[index], score[index]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return [round(float(v), 4) for v in (roc_auc_score(cells.y, score), low, high)]


def ceiling(cells: Cells) -> dict[str, float]:
    """How well the label of a network's other seed predicts its label: what no predictor of the network alone can much exceed."""
    other = {}
    for network, label in zip(cells.network, cells.y, strict=True):
        other.setdefault(network, []).append(bool(label))
    pairs = [v for v in other.values() if len(v) == 2]
    a, b = (np.array([p[k] for p in pairs] + [p[1 - k] for p in pairs]) for k in (0, 1))
    return {"auc": round(float(roc_auc_score(b, a)), 4), "agreement": round(float(np.mean(a == b)), 4)}


def having(cells: Cells, which: str) -> npt.NDArray[np.bool_]:
    """The networks that have a signal: at least four layers, ReLU, or an activation that is flat on both sides."""
    activations = np.array([n[2] for n in cells.network])
    if which == "deep":
        return np.array([int(n[4]) >= 4 for n in cells.network])
    return activations == "relu" if which == "relu" else np.isin(activations, ["tanh", "sigmoid"])


def signal(cells: Cells, rule: str) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The deciding number of each network that has it, and whether that network trains."""
    column, sign, which = RULES[rule]
    picked = having(cells, which)
    return np.nan_to_num(sign * cells.extra[column][picked], nan=99.0, posinf=99.0), cells.y[picked]


def threshold(cells: Cells, rule: str, share: float) -> float:
    """The smallest step at which at most this share of the networks that train is flagged."""
    values, trained = signal(cells, rule)
    steps = STEPS["decades" if RULES[rule][0].endswith(("total", "decades")) else "fraction"]
    return next((round(float(t), 2) for t in steps if np.mean(values[trained] > t) <= share), float(steps[-1]))


def flagged(cells: Cells, rule: str, limit: float) -> dict[str, float]:
    """What a threshold does: share of trained networks flagged, share of the others flagged, share of flagged that do not train."""
    values, trained = signal(cells, rule)
    hit = values > limit
    share = float(np.mean(~trained[hit])) if hit.any() else float("nan")
    shares = (float(np.mean(hit[trained])), float(np.mean(hit[~trained])), share)
    return dict(zip(("of_trained", "of_untrained", "precision"), (round(v, 3) for v in shares), strict=True))


def joined(cells: list[Cells]) -> Cells:
    """Several sets as one."""
    return Cells(
        np.concatenate([c.x for c in cells]),
        np.concatenate([c.y for c in cells]),
        {k: np.concatenate([c.extra[k] for c in cells]) for k in cells[0].extra},
        [n for c in cells for n in c.network],
    )


def main() -> None:
    sets = read()
    fitted, rest = joined([sets[d] for d in FITTED]), {d: c for d, c in sets.items() if d not in FITTED}
    scaler = StandardScaler().fit(fitted.x)
    model = LogisticRegression(C=PENALTY, max_iter=20000).fit(expand(scaler.transform(fitted.x)), fitted.y)

    def report(cells: Cells) -> dict[str, Any]:
        score = model.decision_function(expand(scaler.transform(cells.x)))
        return {
            "networks": len(cells.y),
            "trained": round(float(cells.y.mean()), 3),
            "auc": auc_interval(cells, score),
            "accuracy": round(float(np.mean((score > 0) == cells.y)), 4),
            "auc_of_slopes_alone": auc_interval(cells, -np.maximum(cells.x[:, 0], cells.x[:, 1])),
            "auc_of_depth_alone": auc_interval(cells, -cells.x[:, 3]),
            "other_seed": ceiling(cells),
        }

    together = joined(list(rest.values()))
    limits = {rule: {"warning": threshold(fitted, rule, 0.01), "error": threshold(fitted, rule, 0.0)} for rule in RULES}
    found = {
        "command": "python -m benchmarks.trainability.calibrate",
        "fitted_on": FITTED,
        "sets": {d: report(c) for d, c in {**{d: sets[d] for d in FITTED}, **rest, "held out, together": together}.items()},
        "thresholds": {
            rule: {
                level: {"at": limit, "fitted": flagged(fitted, rule, limit), "held_out": flagged(together, rule, limit)}
                for level, limit in levels.items()
            }
            for rule, levels in limits.items()
        },
    }
    widths = sorted({int(n[1]) for c in sets.values() for n in c.network})
    fit = {
        "made_by": "python -m benchmarks.trainability.calibrate",
        "fitted_on": FITTED,
        "limits": {"activations": list(labels.ACTIVATIONS), "depth": max(labels.DEPTHS), "width": [widths[0], widths[-1]]},
        "mean": scaler.mean_.round(6).tolist(),
        "scale": scaler.scale_.round(6).tolist(),
        "weights": model.coef_[0].round(6).tolist(),
        "bias": round(float(model.intercept_[0]), 6),
    }
    FIT.write_text(json.dumps(fit, indent=1) + "\n")
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
