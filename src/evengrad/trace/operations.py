"""Name of a torch function -> what it does to the signal: the only table of operations."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

LINEAR = {"linear", "bilinear", "matmul", "mm", "bmm", "mv", "addmm", "addmv", "baddbmm", "addbmm", "einsum", "__matmul__", "__rmatmul__"}
CONV = {"conv1d", "conv2d", "conv3d"}
CONV_TRANSPOSE = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
RECURRENT = {
    "lstm": "lstm",
    "gru": "gru",
    "rnn_tanh": "rnn",
    "rnn_relu": "rnn",
    "lstm_cell": "lstm",
    "gru_cell": "gru",
    "rnn_tanh_cell": "rnn",
    "rnn_relu_cell": "rnn",
}
EMBEDDING = {"embedding", "embedding_bag"}
ATTENTION = "multi_head_attention_forward"
NORMS = {name: name for name in ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")}

_ACTIVATIONS = (
    "relu relu6 leaky_relu rrelu prelu elu selu celu gelu sigmoid logsigmoid tanh softplus softsign silu mish hardtanh hardswish "
    "hardsigmoid softmax log_softmax softmin erf glu hardshrink softshrink tanhshrink threshold"
).split()
ACTIVATIONS = {alias: name for name in _ACTIVATIONS for alias in (name, f"{name}_")} | {
    "special_expit": "sigmoid",
    "special_erf": "erf",
}
_OPTIONS = {"leaky_relu": "negative_slope", "elu": "alpha", "celu": "alpha"}
_DEFAULTS = {"leaky_relu": 0.01, "elu": 1.0, "celu": 1.0}

ADDITIONS = {"add", "add_", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "__rsub__", "__isub__", "sub_", "subtract"}
SCALINGS = {
    "mul",
    "mul_",
    "__mul__",
    "__rmul__",
    "__imul__",
    "div",
    "div_",
    "__truediv__",
    "true_divide",
    "__itruediv__",
    "addcmul",
    "multiply",
    "divide",
}
_PASS = (
    "dropout dropout_ alpha_dropout feature_dropout dropout1d dropout2d dropout3d feature_alpha_dropout view reshape flatten unflatten "
    "permute transpose t swapaxes movedim squeeze unsqueeze contiguous clone to type float half bfloat16 double expand expand_as repeat "
    "__getitem__ select narrow index_select gather chunk split tensor_split unbind cat concat concatenate stack hstack vstack pad roll "
    "flip max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "adaptive_max_pool1d adaptive_max_pool2d lp_pool1d lp_pool2d mean sum amax max interpolate pixel_shuffle unfold fold detach identity "
    "masked_fill masked_fill_ where einops view_as __get__ requires_grad_ _conj cuda cpu type_as as_strided neg __neg__ zero_ "
    "moveaxis broadcast_to tile negative repeat_interleave "
    "max_pool2d_with_indices boolean_dispatch fn _pad_packed_sequence _pack_padded_sequence"
).split()
PASS = frozenset(_PASS)
SPLITS = {"chunk", "split", "tensor_split", "unbind"}


def activation_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, dict[str, float]] | None:
    """Returns the canonical name and options of an activation call, or None if the function is not one."""
    if name in {"clamp", "clamp_", "clamp_min", "clamp_min_"}:
        return _clamped(kwargs.get("min", args[1] if len(args) > 1 else None), kwargs.get("max", args[2] if len(args) > 2 else None))
    canonical = ACTIVATIONS.get(name)
    if canonical is None:
        return None
    if canonical == "gelu" and kwargs.get("approximate", args[1] if len(args) > 1 else "none") == "tanh":
        return "gelu_tanh", {}
    if canonical == "hardtanh":
        low = kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
        high = float(kwargs.get("max_val", args[2] if len(args) > 2 else 1.0))
        return ("relu6", {}) if low == 0 else ("hardtanh", {} if high == 1 else {"max_val": high})  # nn.ReLU6 calls hardtanh
    option = _OPTIONS.get(canonical)
    if option is None:
        return canonical, {}
    value = kwargs.get(option, args[1] if len(args) > 1 else _DEFAULTS[canonical])
    return canonical, {option: float(value)}


def _clamped(low: Any, high: Any) -> tuple[str, dict[str, float]] | None:
    """Names a clamp by its bounds; a bound can be a tensor, which has no truth value."""
    if not all(bound is None or isinstance(bound, (int, float)) for bound in (low, high)):
        return None
    name = {(0, None): "relu", (0, 6): "relu6", (-1, 1): "hardtanh"}.get((low, high))
    return (name, {}) if name else None


def function_name(func: Any) -> str:
    """Returns the bare name of a function that a torch function mode was handed."""
    name = getattr(func, "__name__", "")
    return str(name) if name else str(getattr(inspect.unwrap(func), "__name__", "unknown"))
