"""Recommendation -> text for a terminal: the verdict, who came how far, what each factor does, the order of activations."""

from __future__ import annotations

import io
import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from evengrad.recommendation.result import AS_IT_IS, TEXTBOOK, Effect, Inversion, Recommendation, Row
from evengrad.report.numbers import factor, number, percent, plural, seconds
from evengrad.report.text import ASCII, STYLES, clean
from evengrad.report.trials import is_share, score
from evengrad.trial import is_better, middle

_MOST, _UNSEEN = 12, "–"  # rows of the table; what was not measured
_TONES = {"change": "good", "keep": "good", "not_decided": "warn"}


def plain(found: Recommendation, width: int = 100) -> str:
    """Returns the recommendation as text without colours."""
    out = io.StringIO()
    _print(found, Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False, _environ={}))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def render(found: Recommendation, console: Console) -> None:
    """Prints the recommendation on `console`; in ASCII where it has nothing else."""
    if console.options.ascii_only:
        text = plain(found, console.width).translate(ASCII).encode("ascii", "replace").decode()
        console.print(Text(text), soft_wrap=True, highlight=False, end="")
    else:
        _print(found, console)


def _print(found: Recommendation, console: Console) -> None:
    for part in _parts(found, console.width):
        console.print(part, soft_wrap=isinstance(part, Text), highlight=False)


def _parts(found: Recommendation, width: int) -> Iterator[RenderableType]:
    headline, lines = verdict(found)
    yield from _wrapped(account(found), width)
    yield Text()
    yield from _wrapped(headline, width, style=STYLES[_TONES[found.verdict]])
    for line in (*lines, *why(found)):
        yield from _wrapped(line, width)
    yield Text()
    yield _table(found)
    if found.effects:
        yield Text("\nwhat matters in the first short trials:", style="dim")
        for effect in found.effects:
            yield from _wrapped(f"  {effect_told(effect, found)}", width)
    if len(found.order) > 1:
        yield Text("\nactivations, each at its best:", style="dim")
        yield _order_table(found)
        for line in order_told(found):
            yield from _wrapped(f"  {line}", width)
    if found.patch:
        yield Text("\nin your code:", style="dim")
        for line in found.patch.splitlines():
            yield Text(f"  {clean(line)}", style={"+": "green", "-": "red"}.get(line[:1], "dim"))
    if found.skipped:
        yield Text()
        for reason, count in Counter(found.skipped.values()).items():
            first = next(label for label, told in found.skipped.items() if told == reason)
            yield from _wrapped(f"not tried: {first}{f' and {count - 1} more' if count > 1 else ''} ({reason})", width)


def _wrapped(line: str, width: int, style: str = "") -> Iterator[Text]:
    for part in textwrap.wrap(clean(line), max(40, width), subsequent_indent="    ", break_long_words=False, break_on_hyphens=False):
        yield Text(part, style=style)


def account(found: Recommendation) -> str:
    """Returns how many options were tried, and how far."""
    parts = []
    for share, rows in _by_share(found).items():
        how = (
            f"to the end on {plural(len(found.seeds), 'seed')}"
            if share is None
            else f"for {plural(round(share * found.steps), 'step')} at most"
        )
        parts.append(f"{len(rows):,} {how}")
    name = f"{found.name}: " if found.name else ""
    over = "; the time was over before all was tried" if found.late else ""
    return f"{name}{plural(found.options, 'option')}, {', '.join(parts)} ({seconds(found.seconds)}){over}"


def verdict(found: Recommendation) -> tuple[str, list[str]]:
    """Returns what to do, in a sentence, and the numbers it rests on, a line each."""
    own, metric = found.as_it_is, found.metric.replace("_", " ")
    others = [row for row in found.finals if row.label != AS_IT_IS]
    trained = f"{plural(len(others), 'change')} trained to the end"
    if found.verdict == "change":
        best = found.chosen
        lines = [f"better on {_seeds(found)}; of {trained}, the smallest that reaches 90% of the best gain"]
        return f"change it to {best.label}: {metric} {_measured(found, best)}, as it is {_measured(found, own)}", [
            *lines,
            *_proof(found, best),
        ]
    if found.verdict == "not_decided":
        return "not decided: the time was over before a change was trained to the end on every seed", _so_far(found)
    if not others:
        return "keep it as it is: nothing was found to change in this network", [f"{metric} {_measured(found, own)}"]
    if not any(math.isfinite(row.median) for row in found.finals):
        return f"nothing to recommend: it diverges as it is, and so does each of {trained}", ["evengrad fix looks for what is wrong"]
    nearest, shown = others[0], f"{metric} {_measured(found, own)} as it is"
    wins = sum(is_better(a, b, found.maximize) for a, b in zip(own.metrics, nearest.metrics, strict=True))
    lines = [
        f"{shown}; the best change, {nearest.label}: {_measured(found, nearest)}, better on {wins} of {plural(len(found.seeds), 'seed')}"
    ]
    lines += [line for row in others if row.label in found.proofs for line in _proof(found, row)]
    if found.proofs:
        return f"keep it as it is: of {trained}, what is better on {_seeds(found)} is not on others", lines
    return f"keep it as it is: none of {trained} is better on {_seeds(found)}", lines


def _seeds(found: Recommendation) -> str:
    return f"each of {len(found.seeds)} seeds" if len(found.seeds) > 1 else "the one seed that was tried"


def _proof(found: Recommendation, row: Row) -> list[str]:
    """How a change did on other seeds."""
    proof = found.proofs.get(row.label)
    if proof is None:
        return ["not compared on other seeds: the time was over"]
    before, after = (score(found.metric, middle(values, found.maximize)) for values in (proof.before, proof.after))
    wins = sum(is_better(a, b, found.maximize) for a, b in zip(proof.before, proof.after, strict=True))
    return [f"{row.label} on {plural(len(proof.seeds), 'seed')} more: {after}, as it is {before}; better on {wins} of {len(proof.seeds)}"]


def why(found: Recommendation) -> list[str]:
    """Returns what the change does to the signals before training; nothing where nothing is changed, or they were not measured."""
    own, best = found.as_it_is, found.chosen
    if found.verdict != "change" or own.gradient_gain is None or best.gradient_gain is None:
        return []
    told = (
        f"before training, the gradient is multiplied by {number(own.gradient_gain)} a layer as it is, by {number(best.gradient_gain)} then"
    )
    if own.trainability is None or best.trainability is None:
        return [told]
    return [told, f"predicted chance to train at some rate: {percent(own.trainability)} as it is, {percent(best.trainability)} then"]


def effect_told(effect: Effect, found: Recommendation) -> str:
    """Returns what a factor does, with the numbers that show it."""
    if not is_better(effect.levels[effect.against], effect.levels[effect.best], found.maximize):
        return f"{effect.factor}: no level is better than another in the median ({score(found.metric, effect.levels[effect.best])})"
    best, against = (f"{level} ({score(found.metric, effect.levels[level])})" for level in (effect.best, effect.against))
    return f"{effect.factor}: {best} before {against}, better in {effect.wins} of {plural(effect.settings, 'setting')} of the rest"


def order_told(found: Recommendation) -> list[str]:
    """Returns the pairs that stand the other way round than in the textbook, a line each."""
    if len(found.seeds) < 2:
        return ["one seed has no spread: whether the textbook's order holds here needs seeds=2 or more"]
    if not found.inversions:
        return ["no pair stands the other way round than in the textbook beyond the spread of seeds"]
    return [_inversion_told(pair, found) for pair in found.inversions]


def _inversion_told(pair: Inversion, found: Recommendation) -> str:
    worst, best = (score(found.metric, value) for value in (pair.better_worst, pair.worse_best))
    return f"not as in the textbook: {pair.better} beats {pair.worse} here; its worst seed {worst}, the other's best {best}"


def _table(found: Recommendation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    shown = [*(found.finals or found.rows)[:_MOST]]
    if found.as_it_is not in shown:
        shown.append(found.as_it_is)
    table.add_column(f"tried on {plural(len(found.seeds), 'seed')}", min_width=20, overflow="fold")
    columns = {name: cells for name, cells in _columns(found, shown).items() if set(cells) != {_UNSEEN}}
    for name in columns:
        signal = name in {"gradient a layer", "could it train?"}
        table.add_column(name, justify="right", no_wrap=not signal, max_width=9 if signal else None)
    for row, *cells in zip(shown, *columns.values(), strict=True):
        chosen = row is found.chosen and found.verdict == "change"
        label = f"{'✓' if chosen else ' '} {row.label}"
        table.add_row(*(Text(clean(cell), style="bold green" if chosen else "") for cell in (label, *cells)))
    return table


def _columns(found: Recommendation, shown: Sequence[Row]) -> dict[str, list[str]]:
    whole = all(row.share == 1 for row in shown)
    return {
        found.metric.replace("_", " "): [score(found.metric, row.median) for row in shown],
        "min – max": [_range(found.metric, row) for row in shown],
        "tried for": [_UNSEEN if whole else percent(row.share) for row in shown],
        "gradient a layer": [_UNSEEN if row.gradient_gain is None else factor(row.gradient_gain) for row in shown],
        "could it train?": [_UNSEEN if row.trainability is None else percent(row.trainability) for row in shown],
    }


def _order_table(found: Recommendation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("  here", "textbook", found.metric.replace("_", " "), "min – max", "with"):
        table.add_column(name, justify="left" if name in {"  here", "with"} else "right", overflow="fold")
    rows = {row.label: row for row in found.rows}
    for place, name in enumerate(found.order, 1):
        row = rows[found.best_of[name]]
        table.add_row(
            f"  {place} {name}", str(TEXTBOOK.index(name) + 1), score(found.metric, row.median), _range(found.metric, row), Text(row.label)
        )
    return table


def _by_share(found: Recommendation) -> dict[float | None, list[Row]]:
    """Share of a training (None: to the end on every seed) -> rows that came no further, shortest first."""
    final = set(map(id, found.finals))
    groups: dict[float | None, list[Row]] = {}
    for row in reversed(found.rows):
        groups.setdefault(None if id(row) in final else row.share, []).append(row)
    return groups


def _so_far(found: Recommendation) -> list[str]:
    best = next((row for row in found.rows if row.label != AS_IT_IS), None)
    if best is None:
        return []
    return [f"furthest so far: {best.label}, {found.metric} {_measured(found, best)} after {percent(best.share)} of a training on one seed"]


def _measured(found: Recommendation, row: Row) -> str:
    middle, ends = score(found.metric, row.median), _range(found.metric, row)
    return middle if middle == ends else f"{middle} ({ends})"


def _range(metric: str, row: Row) -> str:
    low, high = score(metric, row.low), score(metric, row.high)
    if low == high:
        return low
    return f"{low.removesuffix('%') if is_share(metric) and high.endswith('%') else low} – {high}"
