"""Graph of operations -> the norms that stand behind the skips."""

from __future__ import annotations

from collections.abc import Sequence

from evengrad.trace.capture import Node


def post_norms(nodes: Sequence[Node]) -> tuple[str, ...]:
    """Returns the norms that stand behind a residual addition and let nothing past them, where most additions have one (post-norm).

    With the norm inside the branch (pre-norm) the sum goes on beside it; only the last norm, before the head, stands alone behind one.
    """
    consumers: list[list[int]] = [[] for _ in nodes]
    for node in nodes:
        for source in node.inputs:
            consumers[source].append(node.index)
    sums = [node for node in nodes if node.kind == "add" and len(node.inputs) == 2 and _is_skip(nodes, *node.inputs)]
    behind = [_all_norms(nodes, consumers, node.index) for node in sums]
    found = dict.fromkeys(name for names in behind for name in names)
    return tuple(found) if 2 * sum(map(bool, behind)) > len(sums) else ()


def _is_skip(nodes: Sequence[Node], left: int, right: int) -> bool:
    """True if one side of an addition is computed from the other."""
    early, late = sorted((left, right))
    stack, seen = [late], {late}
    while stack:
        for source in nodes[stack.pop()].inputs:
            if source == early:
                return True
            if source > early and source not in seen:
                seen.add(source)
                stack.append(source)
    return False


def _all_norms(nodes: Sequence[Node], consumers: list[list[int]], start: int) -> list[str]:
    """Returns the norms that a value goes into, or nothing if it goes anywhere else too."""
    found, stack = [], list(consumers[start])
    while stack:
        node = nodes[stack.pop()]
        if node.kind == "norm" and node.op != "batch_norm":
            found.append(node.module)
        elif node.kind == "pass":
            stack.extend(consumers[node.index])
        else:
            return []
    return found
