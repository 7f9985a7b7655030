"""A trace -> what the published thresholds of other tools say of it.

Re-stated on evengrad's traces from papers, documentation and published settings: these are not the tools' own code, what a trace does
not hold is left out or taken from the nearest column (each function says which), and none of them was made for such small trainings.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from evengrad.types import Curve, Floats, Series, Trace

Problems = dict[str, tuple[str, ...]]  # problem -> causes that it names
DIFFERENT = ("lr_too_high", "lr_too_low")
INIT = ("bad_init_large", "bad_init_small", "constant_init", "init_activation_mismatch")


def verdicts(trace: Trace, meta: dict[str, Any]) -> dict[str, Any]:
    """Returns for each tool whether it fires, whether it ever names causes, and which it names here."""
    found: dict[str, Any] = {"score below 0.6": {"fired": meta["score"] < 0.6, "names_causes": False, "causes": [], "problems": []}}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # layers that were never seen have no median
        for name, tool in TOOLS.items():
            problems = tool(trace)
            causes = sorted({cause for named in problems.values() for cause in named})
            found[name] = {"fired": bool(problems), "names_causes": True, "causes": causes, "problems": sorted(problems)}
    return found


def autotrainer(trace: Trace) -> Problems:
    """AUTOTRAINER (Zhang et al. 2021): its five problems, once an epoch, gated on accuracy below 0.6 or slow gain.

    The share of gradient entries that are zero is taken from the share of dead units. Without accuracy (numbers to come near to) the gate
    is a loss above 0.9 of its start. The repair that it tries first is what it names: an activation, clipping, another rate.
    """
    epochs, per_epoch = _epochs(trace)
    found: Problems = {}
    if _broken(trace):
        return {"exploding gradient": ("no_grad_clip",)}
    gain = np.diff(per_epoch)
    late = math.ceil(0.3 * epochs)
    if len(per_epoch):
        slow = len(gain) > 0 and float(gain.max()) < 0.01
        poor = slow or (epochs > 2 and bool((per_epoch[late:] < 0.6).all()))
    else:
        loss = _finite(trace.curves["loss"])
        slow, poor = False, float(loss[-5:].mean()) > 0.9 * float(loss[:5].mean())
    if poor:
        first, last = _norms(trace)
        if bool(((first / last < 1e-3) & (first < 1e-4)).any()):
            found["vanishing gradient"] = ("bad_hidden_activation",)
        if bool((first / last > 70).any()):
            found["exploding gradient"] = ("no_grad_clip",)
        if _any(trace.column("dead_fraction") >= 0.7):
            found["dying relu"] = ("bad_hidden_activation",)
    if len(gain) > 1 and float((gain <= -0.03).mean()) >= 0.2:
        found["oscillating loss"] = ("lr_too_high",)
    if slow or (poor and not found):
        found["slow convergence"] = ("lr_too_low",)
    return found


def deep_diagnosis(trace: Trace) -> Problems:
    """DeepDiagnosis (Wardat et al. 2022): its checks and the change that each asks for.

    Its saturation is beyond 5; the column's is where the slope is under 5% of its largest.
    """
    found: Problems = {}
    if _broken(trace):
        found["numerical error"] = ()
    if _any(trace.column("zero_fraction") >= 0.7):
        found["dead node"] = ("bad_hidden_activation", "bad_init_large")
    if _any(trace.column("saturated_fraction") > 0.5):
        found["saturated activation"] = ("bad_hidden_activation", "bad_init_large")
    if _any(trace.column("grad_abs_mean") < 1e-7):
        found["vanishing gradient"] = ("bad_hidden_activation",)
    variance = trace.column("out_rms")[:1] ** 2 - trace.column("out_mean")[:1] ** 2
    if _any((variance < 1e-5) | (variance > 10)):
        found["poor weights at the start"] = INIT
    ratio = _update_ratio(trace)
    if _any(ratio < 1e-5):
        found["updates too small"] = ("lr_too_low",)
    if _any(ratio > 1e-1):
        found["updates too large"] = ("lr_too_high",)
    if _outside(trace, -1, 1):
        found["data range"] = ("input_not_normalized",)
    targets, head = trace.facts.targets or {}, trace.facts.head or {}
    low = {"relu": 0.0, "sigmoid": 0.0, "tanh": -1.0}.get(head.get("activation", ""))
    if (
        low is not None
        and "labels" not in targets
        and (targets.get("min", 0) < low or targets.get("max", 0) > (math.inf if low == 0 else 1))
    ):
        found["range of the last activation"] = ("wrong_output_activation",)
    if _never_falls(trace, 0.0):
        found["loss does not fall"] = ()
    return found


def sagemaker(trace: Trace) -> Problems:
    """Amazon SageMaker Debugger's built-in rules at their documented defaults, on every sampled step.

    Saturation needs inputs of activations beyond 9.5, which no column counts: left out.
    """
    found: Problems = {}
    if _broken(trace):
        found["ExplodingTensor"] = ()
    if _any(trace.column("grad_abs_mean") < 1e-7):
        found["VanishingGradient"] = ()
    if _any(trace.column("dead_fraction") > 0.5):
        found["DeadRelu"] = ()
    counts = np.array([max(1, layer.parameters) for layer in trace.layers])
    wide = [i for i, layer in enumerate(trace.layers) if layer.depth is not None]
    variances = (trace.column("weight_norm")[0] ** 2 / counts)[wide]
    if len(wide) > 1 and float(np.nanmax(variances)) > 10 * float(np.nanmin(variances)):
        found["PoorWeightInitialization"] = INIT
    ratio = _update_ratio(trace)
    if _any((ratio > 10) | (ratio < 1e-8)):
        found["WeightUpdateRatio"] = DIFFERENT
    still = np.isfinite(ratio) & (ratio <= 1e-5)
    if len(still) > 2 and bool((still[:-2] & still[1:-1] & still[2:]).any()):
        found["UnchangedTensor"] = ("frozen_params",)
    if _never_falls(trace, 0.001):
        found["LossNotDecreasing"] = ()
    train, held = trace.curves.get("eval_loss"), trace.curves.get("val_loss")
    if train is not None and held is not None and bool(((held.values - train.values) / train.values > 0.1).any()):
        found["Overfit"] = ()
    labels = (trace.facts.targets or {}).get("labels")
    if labels and max(labels.values()) > 10 * min(labels.values()):
        found["ClassImbalance"] = ("labels_corrupt",)
    return found


def umlaut(trace: Trace) -> Problems:
    """UMLAUT (Schoop et al. 2021): its heuristics; the one about softmax is turned around, since torch's loss takes logits."""
    found: Problems = {}
    if _outside(trace, -1, 1):
        found["input outside [-1, 1]"] = ("input_not_normalized",)
    if _broken(trace):
        found["loss is NaN"] = ("data_nan",) if (trace.facts.inputs or {}).get("nonfinite_fraction") else ()
    deep = [layer for layer in trace.layers if layer.depth is not None and layer.kind in {"linear", "conv"}]
    if any(layer.activation == "none" and layer.norm == "none" and not layer.residual for layer in deep[:-1]):
        found["linear hidden layer"] = ("missing_activation",)
    if (trace.facts.head or {}).get("activation", "none") not in {"none", "unknown"}:
        found["activation before the loss's own"] = ("redundant_output_activation", "wrong_output_activation")
    if any(drop["p"] > 0.5 for drop in (trace.facts.modules or {}).get("dropouts", ())):
        found["dropout above 0.5"] = ("over_regularized",)
    rate = (trace.facts.optimizer or {}).get("lr") or math.nan
    if rate > 0.01:
        found["rate above 0.01"] = ("lr_too_high",)
    if rate < 1e-7:
        found["rate below 1e-7"] = ("lr_too_low",)
    train, held = trace.curves.get("eval_loss"), trace.curves.get("val_loss")
    if train is not None and held is not None and len(held.values) > 1:
        last = slice(len(held.values) // 2, None)
        if not _falls(held.values[last]) and _falls(train.values[last]):
            found["overfitting"] = ()
    accuracy, held = trace.curves.get("accuracy"), trace.curves.get("val_accuracy")
    if accuracy is not None and held is not None and len(held.values):
        near = float(accuracy.values[-3:].mean())
        if held.values[-1] > 0.95 or held.values[-1] > near + 0.05:
            found["validation accuracy too high"] = ()
    return found


def deep_checker(trace: Trace) -> Problems:
    """TheDeepChecker (Ben Braiek & Khomh 2022): the numbers of its settings file, on sampled steps.

    Its growth and decay rates over a window are left out. Standardized inputs count as normalized, too.
    """
    found: Problems = {}
    facts = trace.facts.inputs or {}
    unit = abs(facts.get("mean", 0.0)) < 0.2 and 0.8 < facts.get("std", 1.0) < 1.2
    if not unit and not (facts.get("min") in {0.0, -1.0} and facts.get("max") == 1.0):
        found["unnormalized data"] = ("input_not_normalized",)
    classes = len((trace.facts.targets or {}).get("labels") or ())
    start = (trace.facts.loss or {}).get("value", 0.0)
    if classes > 1 and not abs(start - math.log(classes)) / math.log(classes) <= 1:
        found["loss at the start"] = (*INIT, "loss_reduction")
    if _any(trace.column("dead_fraction") > 0.5):
        found["dead units"] = ("bad_hidden_activation",)
    if _any(trace.column("saturated_fraction") > 0.5):
        found["saturated units"] = ("bad_hidden_activation",)
    mean = trace.column("grad_abs_mean")
    if _any(mean < 1e-6):
        found["vanishing gradient"] = ("bad_hidden_activation",)
    if _broken(trace) or _any(mean > 1e6) or _any(trace.column("weight_abs_mean") > 1e8):
        found["divergence"] = ()
    ratio = np.nanmedian(_update_ratio(trace), 0)
    if _any(ratio < 1e-4):
        found["updates too small"] = ("lr_too_low",)
    if _any(ratio > 1e-1):
        found["updates too large"] = ("lr_too_high",)
    loss = _finite(trace.curves["loss"])
    periods = np.array([part.mean() for part in np.array_split(loss, min(10, len(loss)))])
    if len(periods) > 5 and bool((np.diff(periods) > -0.05 * np.abs(periods[:-1]))[:5].all()):
        found["loss does not fall"] = ()
    if len(periods) > 1 and periods[-1] > 2 * periods.min() > 0:
        found["loss diverges"] = ("lr_too_high",)
    return found


TOOLS: dict[str, Callable[[Trace], Problems]] = {
    "AUTOTRAINER": autotrainer,
    "DeepDiagnosis": deep_diagnosis,
    "SageMaker Debugger": sagemaker,
    "UMLAUT": umlaut,
    "TheDeepChecker": deep_checker,
}


def _epochs(trace: Trace) -> tuple[int, Series]:
    """How many epochs, and the mean accuracy on training batches of each that was sampled."""
    loop, accuracy = trace.facts.loop or {}, trace.curves.get("accuracy")
    epochs = int(loop.get("epochs", 1))
    if accuracy is None or not len(accuracy.steps):
        return epochs, np.zeros(0)
    epoch = (accuracy.steps * epochs // max(1, int(loop.get("steps", 1)))).clip(0, epochs - 1)
    return epochs, np.array([accuracy.values[epoch == k].mean() for k in np.unique(epoch)])


def _norms(trace: Trace) -> tuple[Floats, Floats]:
    """Norms of the gradient of the first and the last layer, at each sampled step."""
    order = sorted((layer.depth, i) for i, layer in enumerate(trace.layers) if layer.depth is not None)
    grads = trace.column("grad_norm")
    if not order:  # a network whose layers cannot be told, such as one that is traced
        return (np.full((len(trace.steps), 1), np.nan, np.float32),) * 2
    return grads[:, order[0][1]], grads[:, order[-1][1]]


def _update_ratio(trace: Trace) -> Floats:
    return trace.column("update_norm") / trace.column("weight_norm")


def _outside(trace: Trace, low: float, high: float) -> bool:
    facts = trace.facts.inputs or {}
    return bool(facts.get("min", low) < low - 1e-6 or facts.get("max", high) > high + 1e-6)


def _broken(trace: Trace) -> bool:
    return not bool(np.isfinite(trace.curves["loss"].values).all())


def _finite(curve: Curve) -> Series:
    found = curve.values[np.isfinite(curve.values)]
    return found if len(found) else np.zeros(1)


def _falls(values: Series) -> bool:
    return float(values[-1]) <= float(values[0])


def _never_falls(trace: Trace, by: float) -> bool:
    """True if at some step the loss is not lower by this share than the lowest of those ten steps and more before."""
    loss = _finite(trace.curves["loss"])
    earlier = np.minimum.accumulate(loss)[:-10]
    return len(loss) > 10 and bool((loss[10:] > (1 - by) * earlier).any())


def _any(mask: Any) -> bool:
    return bool(np.asarray(mask).any())
