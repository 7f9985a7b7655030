"""A file and the name of an Experiment in it -> the call that makes it, its arguments, and all that they reach."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from evengrad.patching.source import Definition, NotFoundError, Source, definitions
from evengrad.training import Experiment

Place = tuple[Source, ast.AST]
_POSITIONAL = [f.name for f in fields(Experiment) if not f.kw_only]
_MADE_OF = ("model", "optimizer", "loss_fn", "train_step", "scheduler", "metric")


@dataclass(frozen=True)
class Program:
    """The user's files as they are now, and where in them the Experiment is made.

    Attributes:
        sources: What was read or edited of them.
        main: The file that makes the Experiment.
        name: What it is called there.
        line: A line of the call, where the name alone does not tell it.
    """

    sources: Mapping[Path, Source]
    main: Path
    name: str
    line: int | None = None
    _cache: dict[Path, Source] = field(default_factory=dict, compare=False)

    @property
    def source(self) -> Source:
        """The file that makes the Experiment."""
        return self.sources[self.main]

    def held(self, path: Path) -> Source:
        """A file that was read."""
        return self.sources.get(path) or self._cache[path]

    def call(self) -> Place:
        """Finds the one call of `Experiment` that the name, or the line, stands for.

        Raises:
            NotFoundError: if there is none, or several.
        """
        made = named(self.source, self.name) if self.line is None else None
        roots: Iterable[Place] = [(self.source, made or self.source.tree)]
        found = [(s, n) for s, n in self._subtrees(roots if made is None else self.reach(roots)) if _makes_one(s, n)]
        if self.line is not None:
            found = [(s, n) for s, n in found if isinstance(n, ast.Call) and n.lineno <= self.line <= (n.end_lineno or 0)] or found
        if len(found) != 1:
            raise NotFoundError(f"{len(found)} experiments")
        return found[0]

    def argument(self, name: str) -> Place | None:
        """Finds an argument of the Experiment; None if it is not given."""
        source, call = self.call()
        assert isinstance(call, ast.Call)
        if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
            raise NotFoundError("arguments of the Experiment that only running tells")
        given = dict(zip(_POSITIONAL, call.args, strict=False)) | {str(k.arg): k.value for k in call.keywords}
        return (source, given[name]) if name in given else None

    def part(self, *names: str) -> list[Place]:
        """Every node that these arguments reach: their own, and those of the functions, classes and constants that they name."""
        return list(self._subtrees(self.reach(place for name in names if (place := self.argument(name)))))

    def reach(self, roots: Iterable[Place]) -> list[Place]:
        """These nodes, and the definitions that they lead to, each once."""
        found, queue, seen = [], list(roots), set()
        while queue:
            source, node = queue.pop(0)
            if node in seen:
                continue
            seen.add(node)
            found.append((source, node))
            for inner in ast.walk(node):
                queue += [place] if isinstance(inner, (ast.Name, ast.Attribute)) and (place := self.defined(source, inner)) else []
        return found

    def defined(self, source: Source, node: ast.Name | ast.Attribute) -> tuple[Source, Definition] | None:
        """What a name stands for, in this file or in another one of the user's."""
        if isinstance(node, ast.Name) and (found := source.definition(node)):
            return source, found
        module, _, name = (source.full_name(node) or "").rpartition(".")
        other = self._other(module) if module else None
        return (other, held) if other is not None and (held := named(other, name)) else None

    def _other(self, module: str) -> Source | None:
        """The source of a module, if it is the user's: one below the folder of the main file."""
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or not is_users(path := Path(file).resolve()) or self.main.parent not in path.parents:
            return None
        if path in self.sources:
            return self.sources[path]
        if path not in self._cache:
            try:
                self._cache[path] = Source.read(path)
                _ = self._cache[path].tree
            except (SyntaxError, UnicodeError, OSError):
                return None
        return self._cache[path]

    def _subtrees(self, places: Iterable[Place]) -> Iterator[Place]:
        nodes = {inner: (source, inner) for source, node in places for inner in ast.walk(node)}
        return iter(nodes.values())


def program_of(experiment: Experiment, name: str, file: Path | None) -> Program | None:
    """Finds the user's file: the one given, or that of the experiment's functions; None if there is none, or it cannot be read."""
    line = None
    if file is None:
        made_of = [getattr(experiment, part) for part in _MADE_OF]
        found = [(path, thing) for thing in made_of if (path := file_of(thing))]
        if not found:
            return None
        file, thing = found[0]
        line = thing.__code__.co_firstlineno if inspect.isfunction(thing) else None
    try:
        source = Source.read(file.resolve())
        _ = source.tree
    except (SyntaxError, UnicodeError, OSError):
        return None
    return Program({source.path: source}, source.path, name, line)


def file_of(thing: object) -> Path | None:
    """The user's file that a function or class is defined in."""
    try:
        found = inspect.getsourcefile(thing) if inspect.isfunction(thing) or inspect.isclass(thing) else None
    except TypeError:
        return None
    path = Path(found).resolve() if found else None
    return path if path and path.is_file() and is_users(path) else None


def is_users(path: Path) -> bool:
    """True if a file belongs to no installed package, nor to evengrad."""
    return path.suffix == ".py" and "site-packages" not in path.parts and Path(__file__).parents[1] not in path.parents


def named(source: Source, name: str) -> Definition | None:
    """The definition of a name at the top of a file."""
    return definitions(source.tree).get(name)


def _makes_one(source: Source, node: ast.AST) -> bool:
    full = source.full_name(node.func) if isinstance(node, ast.Call) else None
    return full in {"evengrad.Experiment", "evengrad.training.Experiment"}
