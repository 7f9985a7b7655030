"""one call of a model -> the graph of operations that ran: what each was, whose weight it used, which module ran it.

A torch-function mode sees modules, functional calls, in-place operations and data-dependent control flow alike; a stack of running
modules tells where, and the identity of parameters tells whose weight.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from evengrad.trace import operations as ops
from evengrad.trace.adapters import stored_axis


@dataclass(slots=True)
class Node:
    """One operation: its kind, the nodes that fed it and the parameters it used."""

    index: int
    kind: str  # input | weight | activation | norm | add | scale | pass | other
    op: str
    module: str
    inputs: tuple[int, ...] = ()
    weights: tuple[str, ...] = ()
    options: dict[str, float] = field(default_factory=dict)
    fans: tuple[int, int] = (0, 0)
    unit_axis: int = 0
    suffix: str = ""


class Observer(Protocol):
    """What looks at tensors while they flow by."""

    def weight_output(self, node: Node, output: Tensor) -> None:
        """Sees z, right after the weight operation."""

    def activation_input(self, node: Node, value: Tensor) -> None:
        """Sees what an activation is about to be applied to."""


class Capture(TorchFunctionMode):
    """Records the operations of the calls made inside `with capture:`; removes itself without a trace."""

    def __init__(self, model: nn.Module, observer: Observer | None = None) -> None:
        super().__init__()
        self.nodes: list[Node] = [Node(0, "input", "input", "")]
        self.forward = True  # False while backward runs: recomputed blocks are not new nodes
        self.graphless = False  # True once an operation ran without a graph, as in a block that a reentrant checkpoint runs again
        self._model, self._observer = model, observer
        self.modules = dict(model.named_modules())
        self.parameters: dict[str, Tensor] = dict(model.named_parameters())
        self._names = {id(module): name for name, module in self.modules.items()}
        self._own: dict[int, tuple[str, ...]] = {id(p): (name,) for name, p in self.parameters.items()}
        self._parameters = dict(self._own)
        self._norms = {id(m) for m in self.modules.values() if is_custom_norm(m)}
        self._stack: list[nn.Module] = [model]
        self._inside_norm = 0
        self._values: dict[int, int] = {}
        self._keep: list[Tensor] = []
        self._hooks = ExitStack()
        self._thread = threading.get_ident()

    def __enter__(self) -> Capture:
        self._hooks.enter_context(module_calls(self._enter_module, self._exit_module))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        self._hooks.close()
        self._keep.clear()  # numbers of tensors that are gone can come again
        self._parameters = dict(self._own)

    def inputs(self, value: object) -> None:
        """Declares the tensors in `value` as the data that enters the model."""
        for tensor in tensors_in(value):
            self._bind(tensor, 0)

    def producers(self, value: object) -> tuple[int, ...]:
        """Returns the nodes that made the tensors in `value`."""
        return tuple(dict.fromkeys(self._values[id(t)] for t in tensors_in(value) if id(t) in self._values))

    def _enter_module(self, module: nn.Module, _args: object) -> None:
        if id(module) in self._names and threading.get_ident() == self._thread:
            self._stack.append(module)
            self._inside_norm += id(module) in self._norms

    def _exit_module(self, module: nn.Module, _args: object, output: object) -> None:
        if id(module) not in self._names or threading.get_ident() != self._thread:
            return
        if self._stack[-1] is module and len(self._stack) > 1:
            self._stack.pop()
        if id(module) in self._norms:
            self._inside_norm -= 1
            for index in self.producers(output) if self.forward else ():
                node = self.nodes[index]
                node.kind, node.module = "norm", self._names[id(module)]
                words = type(module).__name__.lower()
                node.op = next((f"{kind}_norm" for kind in ("rms", "batch", "group") if kind in words), "layer_norm")

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = ops.function_name(func)
        parameters, data = self._split((args, kwargs))
        node = self._classify(name, args, kwargs, parameters, data) if parameters or data else None
        self.graphless |= node is not None and not torch.is_grad_enabled()
        if node is not None and node.kind == "activation" and self._observer is not None and self.forward:
            self._observer.activation_input(node, data[0])
        output = func(*args, **kwargs)
        if node is not None:
            self._commit(node, name, args, kwargs, output)
        elif parameters and not data:  # w.t(), casts, weight_norm: still that parameter
            for tensor in tensors_in(output):
                self._parameters.setdefault(id(tensor), parameters)
                self._keep.append(tensor)
        return output

    def _split(self, value: object) -> tuple[tuple[str, ...], list[Tensor]]:
        names: dict[str, None] = {}
        data: list[Tensor] = []
        for tensor in tensors_in(value):
            owned = self._parameters.get(id(tensor))
            if owned is not None:
                names.update(dict.fromkeys(owned))
            elif id(tensor) in self._values or (tensor.is_floating_point() and tensor.requires_grad):
                data.append(tensor)
        return tuple(names), data

    def _classify(self, name: str, args: Any, kwargs: Any, parameters: tuple[str, ...], data: list[Tensor]) -> Node | None:
        if not data:
            return None
        kind, op = "other", name
        options: dict[str, float] = {}
        activation = ops.activation_of(name, args, kwargs)
        if self._inside_norm:
            kind = "pass"
        elif parameters and (
            name in ops.LINEAR | ops.CONV | ops.CONV_TRANSPOSE | ops.EMBEDDING or name in ops.RECURRENT or name == ops.ATTENTION
        ):
            kind = "weight"
        elif activation is not None:
            kind, (op, options) = "activation", activation
        elif name in ops.NORMS:
            kind = "norm"
        elif name in ops.ADDITIONS:
            kind = "add"
        elif name in ops.SCALINGS:
            kind = "scale"
        elif name in ops.PASS:
            kind = "pass"
        sources = self._sources(data) if self.forward else ()
        return Node(-1, kind, op, self._names[id(self._stack[-1])], sources, parameters, options)

    def _sources(self, data: list[Tensor]) -> tuple[int, ...]:
        found = []
        for tensor in data:
            if id(tensor) not in self._values:  # made out of sight (a custom autograd function): link it to what came last
                self._bind(tensor, self._add(Node(-1, "other", "unknown", self._names[id(self._stack[-1])], (len(self.nodes) - 1,))))
            found.append(self._values[id(tensor)])
        return tuple(dict.fromkeys(found))

    def _commit(self, node: Node, name: str, args: Any, kwargs: Any, output: Any) -> None:
        if not self.forward:
            if node.kind == "weight" and self._observer is not None:
                self._observer.weight_output(node, next(tensors_in(output)))
            return
        if node.kind == "weight":
            self._commit_weight(node, name, args, kwargs, output)
        else:
            made = list(tensors_in(output))
            index = self._add(node) if made else 0
            for tensor in made:
                self._bind(tensor, index)

    def _commit_weight(self, node: Node, name: str, args: Any, kwargs: Any, output: Any) -> None:
        for part in split_levels(node, name):
            index = self._add(part)
            node.inputs = (index,)
        result = next(tensors_in(output))
        part.fans, axis = fans_of(name, args, kwargs, self._parameters, result)
        weight = max(part.weights, key=lambda w: self.parameters[w].numel())
        part.unit_axis = stored_axis(self._model, weight, self.parameters[weight], axis)
        for tensor in tensors_in(output):
            self._bind(tensor, index)
        if self._observer is not None:
            self._observer.weight_output(part, result)

    def _add(self, node: Node) -> int:
        node.index = len(self.nodes)
        self.nodes.append(node)
        return node.index

    def _bind(self, tensor: Tensor, index: int) -> None:
        self._values[id(tensor)] = index
        self._keep.append(tensor)


@contextmanager
def module_calls(enter: Callable[..., None], leave: Callable[..., None]) -> Iterator[None]:
    """Has `enter(module, args)` and `leave(module, args, output)` called around each call of any module, also one that raises."""
    before = torch_module.register_module_forward_pre_hook(enter)
    after = torch_module.register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def is_custom_norm(module: nn.Module) -> bool:
    """True for a normalisation that is not torch's (an RMSNorm by hand, Keras's), whose arithmetic is one step of the signal."""
    inner = [m for m in module.children() if not isinstance(m, nn.ParameterDict)]
    return "norm" in type(module).__name__.lower() and not type(module).__module__.startswith("torch.") and not inner


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yields the tensors in nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif value is None or isinstance(value, (int, float, str)):
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            yield from tensors_in(getattr(value, part.name))
    elif hasattr(value, "to_tuple"):  # model outputs of Transformers
        yield from tensors_in(value.to_tuple())
    elif isinstance(held := getattr(value, "value", None), Tensor):  # a variable of Keras
        yield held


def split_levels(node: Node, name: str) -> Iterator[Node]:
    """Splits a stacked RNN into one node a level, and attention into in_proj and out_proj."""
    if name == ops.ATTENTION:
        ends = tuple(w for w in node.weights if ".out_proj." in f".{w}")
        parts = [("in_proj", tuple(w for w in node.weights if w not in ends)), ("out_proj", ends)]
    elif name in ops.RECURRENT and not name.endswith("_cell"):
        levels: dict[str, list[str]] = {}
        for weight in node.weights:
            levels.setdefault(level_of(weight), []).append(weight)
        parts = [(level, tuple(weights)) for level, weights in levels.items()]
    else:
        parts = [("", node.weights)]
    for suffix, weights in parts:
        if weights:  # read node.inputs late: the caller chains one part to the next
            yield Node(-1, node.kind, node.op, node.module, node.inputs, weights, suffix=suffix)


def level_of(weight: str) -> str:
    """Returns `l0` for `rnn.weight_ih_l0` and `rnn.bias_hh_l0_reverse` alike."""
    leaf = weight.rsplit(".", 1)[-1].removesuffix("_reverse")
    return leaf.rsplit("_", 1)[-1]


def fans_of(name: str, args: Any, kwargs: Any, parameters: dict[int, tuple[str, ...]], output: Tensor) -> tuple[tuple[int, int], int]:
    """Returns ((fan_in, fan_out), the axis of the weight that counts output units), or zeros where the weight itself must tell."""
    operands = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
    weight = next((t for t in operands if id(t) in parameters and t.dim() > 1), None)
    if weight is None:
        return (0, 0), 0
    if name == "einsum" and isinstance(args[0], str) and "->" in args[0]:
        return _einsum_fans(args[0], next(i for i, t in enumerate(operands) if t is weight), weight.shape)
    if name in ops.CONV:
        return (weight[0].numel(), weight.shape[0] * weight[0, 0].numel() // _option(name, args, kwargs, "groups", 1)), 0
    if name in ops.CONV_TRANSPOSE:
        stride = torch.as_tensor(_option(name, args, kwargs, "stride", 1)).expand(weight.dim() - 2).prod().item()
        groups = _option(name, args, kwargs, "groups", 1)
        return (max(1, weight.shape[0] // groups * weight[0, 0].numel() // int(stride)), weight[0].numel()), 1
    if name in ops.LINEAR - {"linear", "bilinear", "einsum"} and weight is operands[-1] and weight.shape[-1] == output.shape[-1]:
        axis = weight.dim() - 1 if weight.is_contiguous() else 0  # x @ w: a kernel laid out [in, out]; x @ w.T: [out, in]
        return (weight.shape[-2], weight.shape[-1]), axis
    return (weight[0].numel(), weight.shape[0]), 0


def _einsum_fans(equation: str, operand: int, shape: Sequence[int]) -> tuple[tuple[int, int], int]:
    """Letters of the weight that the result lacks are summed over; those that only the weight brings count units."""
    left, right = equation.replace(" ", "").split("->")
    terms = left.split(",")
    letters, others = terms[operand].replace("...", ""), "".join(terms[:operand] + terms[operand + 1 :])
    sizes = dict(zip(letters, shape[-len(letters) :], strict=True))
    units = [x for x in letters if x in right and x not in others]
    axis = len(shape) - len(letters) + letters.index(units[0]) if units else 0
    return (math.prod(n for x, n in sizes.items() if x not in right), math.prod(sizes[x] for x in units)), axis


_POSITIONS = {"conv": {"stride": 3, "groups": 6}, "conv_transpose": {"stride": 3, "groups": 6}}


def _option(name: str, args: Any, kwargs: Any, option: str, default: Any) -> Any:
    position = _POSITIONS[name.rstrip("123d")][option]
    return kwargs.get(option, args[position] if len(args) > position else default)
