"""Trials -> how much each number matters, by Optuna's evaluators."""

from __future__ import annotations

import math
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

from evengrad.lab.search.keeping import quiet
from evengrad.lab.search.watch import COMPLETE

if TYPE_CHECKING:
    from evengrad.lab.search.result import SearchResult

_FEWEST = 4  # trials from which anything can be said


def importance(result: SearchResult) -> dict[str, float]:
    """Returns the shares of `SearchResult.importance`."""
    import optuna
    from optuna.trial import create_trial

    ended = [t for t in result.trials if t.how == COMPLETE]
    if len(ended) < _FEWEST or len({t.metric for t in ended}) < 2:
        return {}
    axes = result.space
    distributions = {name: axis.distribution() for name, axis in axes.items()}
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, on trees of few samples
        study = optuna.create_study(direction="maximize" if result.maximize else "minimize")
        for one in ended:
            params = {name: axis.draw(one.numbers[name]) for name, axis in axes.items()}
            study.add_trial(create_trial(value=one.metric, params=params, distributions=distributions))
        evaluators = optuna.importance
        chosen = evaluators.FanovaImportanceEvaluator(seed=0) if find_spec("sklearn") else evaluators.PedAnovaImportanceEvaluator()
        found = evaluators.get_param_importances(study, evaluator=chosen)
    total = sum(found.values())
    return {name: float(share / total) for name, share in found.items() if math.isfinite(share)} if total > 0 else {}
