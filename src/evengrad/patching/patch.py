"""An experiment and the proposals that repair it -> what to change in the user's files, as a diff and as their new content."""

from __future__ import annotations

import ast
import difflib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evengrad.patching import proof
from evengrad.patching.fragments import changes_of
from evengrad.patching.literal import CHOICES, edited
from evengrad.patching.program import Program, program_of
from evengrad.patching.snippet import snippet, with_snippet
from evengrad.patching.source import NotFoundError, Source, encoding_of
from evengrad.training import Experiment
from evengrad.types import Proposal


@dataclass(frozen=True, kw_only=True)
class Patch:
    """What to change in one's own files.

    Attributes:
        text: A unified diff of them, and a ready statement for what it does not hold.
        files: Path -> the new content; empty if nothing was found literally and no file is known.
        literal: Summaries of the proposals that became edits of the user's own lines.
    """

    text: str
    files: Mapping[Path, str] = field(default_factory=dict)
    literal: tuple[str, ...] = ()


def patch_of(experiment: Experiment, proposals: Sequence[Proposal], *, name: str = "experiment", file: Path | None = None) -> Patch:
    """Returns the changes of the user's files that repair an experiment as the proposals do.

    A proposal whose code is found in the file becomes an edit there, if the edited file then makes the same network, optimizer and first
    losses as the repaired experiment (that is tried out where the file is given, by running it); all the others become one statement
    behind the experiment that repairs it exactly.

    Args:
        experiment: The experiment without these proposals.
        proposals: What repairs it, in order.
        name: What it is called in the file.
        file: The file that makes it; None for that of its functions, of which only the text is looked at.

    Example:
        >>> result = eg.fix(experiment)
        >>> print(patch_of(experiment, result.chosen).text)
    """
    program = program_of(experiment, name, file)
    if program is None or not proposals:
        return Patch(text=snippet(name, proposals)[0] if proposals else "")
    before, tried = program, file is not None
    done: list[Proposal] = []
    for proposal in proposals:
        found = _literally(program, proposal, experiment, tried=tried)
        if found is not None:
            program, experiment = found
            done.append(proposal)
    rest = [p for p in proposals if p not in done]
    text = ""
    if rest and tried:
        try:
            program = _with_statement(program, rest)
        except NotFoundError:
            return Patch(text=snippet(name, proposals)[0])
    elif rest:
        text = snippet(name, rest)[0]
    files = {p: s.text for p, s in program.sources.items() if s.text != (before.sources.get(p) or before.held(p)).text}
    shown = "".join(_diff(before.held(p), new, program.main.parent) for p, new in files.items())
    return Patch(text="\n".join(part for part in (shown, text) if part), files=files, literal=tuple(p.summary for p in done))


def write(patch: Patch) -> None:
    """Writes the new content of every file, each at once or not at all, in the encoding and with the newlines that it had."""
    for path, text in patch.files.items():
        content = text.encode(encoding_of(path))
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as held:
            held.write(content)
        try:
            shutil.copymode(path, held.name)
            Path(held.name).replace(path)
        except BaseException:
            Path(held.name).unlink(missing_ok=True)
            raise


def _literally(program: Program, proposal: Proposal, experiment: Experiment, *, tried: bool) -> tuple[Program, Experiment] | None:
    """The program with all of a proposal's lines in it, and the experiment that it makes; None where they are not there or do not do it."""
    try:
        changes = changes_of(proposal.code)
    except NotFoundError:
        return None
    wanted = experiment.repaired([proposal])
    for choice in CHOICES if tried else CHOICES[:1]:
        new = program
        try:
            for change in changes:
                new = edited(new, change, experiment, choice)
        except NotFoundError:
            continue
        made = wanted if not tried else proof.made(new, experiment.device) if proof.agrees(wanted, new, changes) else None
        if new.sources != program.sources and made is not None:
            return new, made
    return None


def _with_statement(program: Program, proposals: Sequence[Proposal]) -> Program:
    """The program with the statement that repairs its experiment behind the one that makes it.

    Raises:
        NotFoundError: if the file then cannot be run, or does not hold it.
    """
    source = program.source
    last = [s.end_lineno for s in source.tree.body if _binds(s, program.name)] or [len(source.text.splitlines())]
    new = with_snippet(source, program.name, proposals, last[-1] or 1, encoding_of(source.path))
    changed = replace(program, sources={**program.sources, source.path: new})
    if proof.made(changed) is None:
        raise NotFoundError(program.name)
    return changed


def _binds(statement: ast.stmt, name: str) -> bool:
    """True if a statement at the top of a file gives a name its value, in a block, in a tuple or by an import, too."""
    nodes = list(ast.walk(statement))
    stored = any(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store) for n in nodes)
    function = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    return (stored and not function) or any(isinstance(n, ast.alias) and (n.asname or n.name) == name for n in nodes)


def _diff(old: Source, new: str, root: Path) -> str:
    path = old.path.relative_to(root) if root in old.path.parents else Path(old.path.name)
    lines = difflib.unified_diff(_lines(old.text), _lines(new), f"a/{path.as_posix()}", f"b/{path.as_posix()}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    return text.replace("\n", "\n\0").rstrip("\0").split("\0") if text else []
