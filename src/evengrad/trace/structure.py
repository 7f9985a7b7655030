"""Graph of operations -> rows: what owns a weight, what follows it, what lies on one trunk with it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from evengrad.trace import operations as ops
from evengrad.trace.capture import Capture, Node
from evengrad.trace.post_norms import post_norms
from evengrad.types import Layer

_GATES = {  # activations that, multiplied by what they were applied to, are another one
    "sigmoid": "silu",
    "erf": "gelu",
    "tanh": "gelu_tanh",
    "softplus": "mish",
    "relu6": "hardswish",
    "hardsigmoid": "hardswish",
}
_NEAR = 8  # operations within which such a product is looked for
_DEEP = {"linear", "conv", "conv_transpose", "rnn", "lstm", "gru", "attention"}  # kinds that enter a slope


@dataclass(frozen=True)
class Structure:
    """Rows, and where in the graph each was seen.

    Attributes:
        layers: L rows in the order in which data meets them.
        rows: Weight node -> its row.
        activations: Row -> the activation nodes that follow its calls, where one was found.
        unit_axes: The axis of each row's weight that counts output units.
        edges: Pairs of rows, the first feeding the second.
        unused: Trainable parameters that the forward pass never touched.
        head: Rows whose output reaches the model's output without another weight in between.
        post_norms: Norms that stand behind residual additions (see `post_norms`).
        read_from: The nodes that it was read from, and those that made the output.
    """

    layers: tuple[Layer, ...]
    rows: dict[int, int]
    activations: dict[int, tuple[int, ...]]
    unit_axes: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    unused: tuple[str, ...]
    head: tuple[int, ...]
    post_norms: tuple[str, ...]
    read_from: tuple[list[Node], tuple[int, ...]] = field(compare=False, repr=False)


@dataclass(frozen=True)
class _After:
    activation: str = "none"
    options: dict[str, float] = field(default_factory=dict)
    node: int | None = None
    module: str | None = None
    norm: str = "none"
    norm_module: str | None = None


@dataclass
class _Row:
    name: str
    kind: str
    nodes: list[int]
    weights: tuple[str, ...]
    weight: str
    fans: tuple[int, int]
    unit_axis: int
    parameters: int = 0
    bias: str | None = None
    after: _After = _After()


def read_structure(capture: Capture, output: object, known: Structure | None = None) -> Structure:
    """Turns what a capture saw of one call of its model into rows.

    A `known` structure, read from another call of the same model, is given back where both calls went the same way.
    """
    nodes, parameters = capture.nodes, capture.parameters
    read_from = (nodes, capture.producers(output))
    if known is not None and known.read_from == read_from:
        return known
    rows = _rows(nodes, parameters, capture.modules)
    by_node = {index: i for i, row in enumerate(rows) for index in row.nodes}
    outputs = set(read_from[1])
    consumers = _consumers(nodes, outputs)
    activations = {}
    for i, row in enumerate(rows):
        calls = [_follow(nodes, consumers, index, outputs) for index in row.nodes]
        row.after = calls[0]
        activations[i] = tuple(after.node for after in calls if after.node is not None)
    edges = _edges(nodes, by_node)
    residual = _residual_rows(nodes, by_node)
    owned = _own_parameters(rows, parameters)
    layers = _layers(rows, nodes, by_node, residual, parameters)
    touched = {name for node in nodes for name in node.weights} | owned
    return Structure(
        layers=layers,
        rows=by_node,
        activations=activations,
        unit_axes=tuple(row.unit_axis for row in rows),
        edges=edges,
        unused=tuple(name for name, p in parameters.items() if p.requires_grad and name not in touched),
        head=tuple(sorted(_nearest_rows(nodes, by_node, outputs))),
        post_norms=post_norms(nodes),
        read_from=read_from,
    )


def _rows(nodes: Sequence[Node], parameters: dict[str, Tensor], modules: dict[str, nn.Module]) -> list[_Row]:
    rows: dict[tuple[str, str], _Row] = {}
    for node in nodes:
        if not node.weights:
            continue
        kind = _kind(node, modules)
        weight = max(node.weights, key=lambda w: parameters[w].numel()) if node.kind == "weight" else node.weights[0]
        if kind is None:
            continue
        key = weight.rpartition(".")[0] or weight if kind == "norm" else weight  # a norm by hand scales and shifts in two operations
        found = rows.get((key, kind))
        if found is None:
            told = node.fans[0] and not node.suffix and node.op not in ops.RECURRENT
            fans = node.fans if told else _fans_from_weights(node, parameters)
            rows[key, kind] = _Row(_row_name(node, weight, modules), kind, [node.index], node.weights, weight, fans, node.unit_axis)
        else:
            found.nodes.append(node.index)
    kept = [row for row in rows.values() if row.kind != "unknown" or not _owned_elsewhere(row, rows.values())]
    _rename_duplicates(kept)
    return kept


def _kind(node: Node, modules: dict[str, nn.Module]) -> str | None:
    if node.kind == "weight":
        if node.op in ops.CONV:
            return "conv"
        if node.op in ops.CONV_TRANSPOSE:
            return "conv_transpose"
        if node.op in ops.EMBEDDING:
            return "embedding"
        return ops.RECURRENT.get(node.op, "attention" if node.op == ops.ATTENTION else "linear")
    if node.op == "prelu":
        return "prelu"
    inside = modules.get(node.module)
    if node.kind == "norm" or (inside is not None and "norm" in type(inside).__name__.lower()):
        return "norm"
    return "unknown"  # a positional embedding, a learned scale: a weight whose part in the signal has no name


def _owned_elsewhere(row: _Row, rows: Iterable[_Row]) -> bool:
    """True for a bias added by hand: its module already has a row with a real weight operation."""
    owner = row.weight.rpartition(".")[0]
    return any(other.kind != "unknown" and other.weight.rpartition(".")[0] == owner for other in rows)


def _row_name(node: Node, weight: str, modules: dict[str, nn.Module]) -> str:
    owner = node.module
    if not weight.startswith(f"{owner}." if owner else ""):  # tied to another module's weight, or used from outside its owner
        ties = modules[owner]._parameters.values() if owner in modules else ()
        shared = any(p is not None and p is modules[weight.rpartition(".")[0]]._parameters.get(weight.rpartition(".")[2]) for p in ties)
        owner = owner if shared else weight.rpartition(".")[0]
    leaf = weight[len(owner) + 1 :] if owner else weight
    if node.suffix:
        return f"{owner}.{node.suffix}" if owner else node.suffix
    known = leaf in {"weight", "kernel", "gamma"} or leaf.startswith("parametrizations.") or not weight.startswith(owner)
    if node.op.endswith("_cell") or known:
        return owner or leaf
    return f"{owner}.{leaf}" if owner else leaf


def _rename_duplicates(rows: list[_Row]) -> None:
    counts = Counter(row.name for row in rows)
    for row in rows:
        if counts[row.name] > 1:
            row.name = f"{row.name}.{row.weight.rpartition('.')[2]}" if row.kind not in {"embedding"} else f"{row.name} (embedding)"


def _fans_from_weights(node: Node, parameters: dict[str, Tensor]) -> tuple[int, int]:
    shapes = [tuple(parameters[w].shape) for w in node.weights if parameters[w].dim() > 1]
    if not shapes:
        return 0, 0
    if node.op == ops.ATTENTION:
        return shapes[0][1], shapes[0][0]
    if node.op in ops.RECURRENT:
        hidden = min(shape[-1] for shape in shapes[1:2] or shapes)
        return sum(shape[-1] for shape in shapes[:2]), hidden
    return shapes[0][-1], shapes[0][0]


def _own_parameters(rows: list[_Row], parameters: dict[str, Tensor]) -> set[str]:
    """Gives every parameter to one row: to the row whose operation used it first, or to the row of the module that holds it."""
    by_owner = {row.weight.rpartition(".")[0]: row for row in reversed(rows)}
    taken: set[str] = set()
    for row in rows:
        for name in row.weights:
            if name not in taken:
                taken.add(name)
                row.parameters += parameters[name].numel()
                if parameters[name].dim() == 1 and name != row.weight:
                    row.bias = row.bias or name
    for name, parameter in parameters.items():
        holder = by_owner.get(name.rpartition(".")[0])
        if name not in taken and holder is not None:
            taken.add(name)
            holder.parameters += parameter.numel()
            holder.bias = holder.bias or (name if parameter.dim() == 1 else None)
    return taken


def _consumers(nodes: Sequence[Node], outputs: set[int]) -> list[list[int]]:
    """Which nodes use each node, without those whose result reaches no output: an activation that is computed and dropped is none."""
    used, stack = set(outputs), list(outputs)
    while stack:
        fresh = set(nodes[stack.pop()].inputs) - used
        used |= fresh
        stack.extend(fresh)
    found: list[list[int]] = [[] for _ in nodes]
    for node in nodes if not outputs else (node for node in nodes if node.index in used):
        for source in node.inputs:
            found[source].append(node.index)
    return found


def _follow(nodes: Sequence[Node], consumers: list[list[int]], start: int, outputs: set[int]) -> _After:
    """Walks from a weight's output to the first activation; views, pools, dropout, norms and additions are passed."""
    norm, norm_module = "none", None
    if nodes[start].op in ops.RECURRENT:
        return _After("relu" if "relu" in nodes[start].op else "tanh", module=nodes[start].module)
    queue, seen, unknown = list(consumers[start]), {start}, not consumers[start] and start not in outputs
    while queue:
        index = queue.pop(0)
        node = nodes[index]
        if index in seen:
            continue
        seen.add(index)
        if node.kind == "norm" and norm == "none":
            norm, norm_module = node.op, node.module
        if node.kind == "activation":
            return _After(_by_hand(nodes, consumers, index), node.options, index, node.module, norm, norm_module)
        unknown = unknown or node.kind == "other"
        if node.kind not in {"weight", "other"}:
            queue.extend(consumers[index])
    return _After("unknown" if unknown else "none", norm=norm, norm_module=norm_module)


def _by_hand(nodes: Sequence[Node], consumers: list[list[int]], index: int) -> str:
    """Names an activation, also where it is written by hand: x * sigmoid(x) is SiLU, x / 2 * (1 + erf(x / sqrt 2)) is GELU."""
    name = nodes[index].op
    if name not in _GATES:
        return name
    fed, below = _upstream(nodes, nodes[index].inputs, {"scale", "add", "other"}), [index]
    for current in below:  # grows while constants are added and multiplied
        for consumer in consumers[current]:
            node = nodes[consumer]
            met = fed & _upstream(nodes, set(node.inputs) - {current}, {"scale"})
            if node.kind == "scale" and met:
                halves = name == "sigmoid" and any(nodes[i].op in ops.SPLITS for i in met)
                return "glu" if halves else _GATES[name]
            if len(node.inputs) == 1 and len(below) < _NEAR and (node.kind in {"scale", "add", "pass"} or node.op == "tanh"):
                below.append(consumer)
    return name


def _upstream(nodes: Sequence[Node], start: Iterable[int], through: set[str]) -> set[int]:
    """Returns the nodes reached upwards through nodes of these kinds, with those where it ends; a few at most."""
    found: set[int] = set()
    stack = list(start)
    while stack and len(found) < _NEAR:
        index = stack.pop()
        found.add(index)
        if nodes[index].kind in through:
            stack.extend(nodes[index].inputs)
    return found


def _nearest_rows(nodes: Sequence[Node], by_node: dict[int, int], start: Iterable[int]) -> set[int]:
    found, stack, seen = set(), list(start), set()
    while stack:
        index = stack.pop()
        if index in seen:
            continue
        seen.add(index)
        if index in by_node and nodes[index].kind == "weight":
            found.add(by_node[index])
        else:
            stack.extend(nodes[index].inputs)
    return found


def _edges(nodes: Sequence[Node], by_node: dict[int, int]) -> tuple[tuple[int, int], ...]:
    """Links each row to the nearest rows upstream, in one pass over the graph."""
    nearest: list[frozenset[int]] = []
    edges: dict[tuple[int, int], None] = {}
    for node in nodes:
        sources = frozenset().union(*(nearest[i] for i in node.inputs)) if len(node.inputs) != 1 else nearest[node.inputs[0]]
        row = by_node.get(node.index) if node.kind == "weight" else None
        if row is not None:
            edges.update(dict.fromkeys((source, row) for source in sorted(sources) if source != row))
            sources = frozenset({row})
        nearest.append(sources)
    return tuple(edges)


def _residual_rows(nodes: Sequence[Node], by_node: dict[int, int]) -> set[int]:
    """Finds rows on a branch that is added back: the sides of an addition that meet again further up, one with fewer weights."""
    found: set[int] = set()
    for node in nodes:
        if node.kind == "add" and len(node.inputs) == 2:
            left, right = _branches(nodes, *node.inputs)
            sides = [{by_node[i] for i in side if nodes[i].kind == "weight" and i in by_node} for side in (left, right)]
            if len(sides[0]) != len(sides[1]):
                found |= sides[0] | sides[1]
    return found


def _branches(nodes: Sequence[Node], left: int, right: int) -> tuple[set[int], set[int]]:
    """Walks both sides up, newest node first, until they meet in one node; returns the nodes on each side alone."""
    colours = {left: 1, right: 2}
    heap = sorted((-left, -right))
    sides: tuple[set[int], set[int]] = (set(), set())
    while heap:
        index = -heapq.heappop(heap)
        if not heap and (colours[index] == 3 or index == 0):
            return sides if colours[index] == 3 else (set(), set())
        if colours[index] != 3:
            sides[colours[index] - 1].add(index)
        for source in nodes[index].inputs:
            if source not in colours:
                heapq.heappush(heap, -source)
            colours[source] = colours.get(source, 0) | colours[index]
    return set(), set()


def _layers(
    rows: list[_Row], nodes: Sequence[Node], by_node: dict[int, int], residual: set[int], parameters: dict[str, Tensor]
) -> tuple[Layer, ...]:
    deep = [i for i, row in enumerate(rows) if row.kind in _DEEP]
    depth = {row: number for number, row in enumerate(deep, 1)}
    shapes: dict[int, object] = {i: (rows[i].kind, tuple(parameters[rows[i].weight].shape), rows[i].fans) for i in deep}
    ancestors = _ancestors(nodes, by_node, len(rows))
    groups = _chains(deep, shapes, ancestors)
    trunks = _chains(deep, {i: rows[i].kind for i in deep}, ancestors)
    return tuple(
        Layer(
            name=row.name,
            kind=row.kind,
            depth=depth.get(i),
            group=groups.get(i),
            trunk=trunks.get(i),
            fan_in=row.fans[0],
            fan_out=row.fans[1],
            parameters=row.parameters,
            weight=row.weight,
            bias=row.bias,
            activation=row.after.activation,
            activation_options=row.after.options,
            activation_module=row.after.module,
            norm=row.after.norm,
            norm_module=row.after.norm_module,
            residual=i in residual,
        )
        for i, row in enumerate(rows)
    )


def _ancestors(nodes: Sequence[Node], by_node: dict[int, int], count: int) -> list[int]:
    """Returns for each row the set of rows upstream of its first node, as the bits of an integer."""
    masks: list[int] = []
    found = [0] * count
    for node in nodes:
        mask = 0
        for source in node.inputs:
            mask |= masks[source]
        row = by_node.get(node.index)
        if row is not None and node.kind == "weight":
            found[row] = found[row] or mask
            mask |= 1 << row
        masks.append(mask)
    return found


def _chains(rows: list[int], keys: dict[int, object], ancestors: list[int]) -> dict[int, int]:
    """Numbers rows of one key so that each row of a chain lies upstream of the next."""
    last: dict[object, list[tuple[int, int]]] = {}
    numbers: dict[int, int] = {}
    for row in rows:
        chains = last.setdefault(keys[row], [])
        fitting = [k for k, (_, end) in enumerate(chains) if ancestors[row] >> end & 1]
        if fitting:
            number = chains[fitting[0]][0]
            chains[fitting[0]] = (number, row)
        else:
            number = sum(len(c) for c in last.values())
            chains.append((number, row))
        numbers[row] = number
    return numbers
