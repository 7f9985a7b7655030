"""A change and a program -> the program with the user's own lines edited."""

from __future__ import annotations

from dataclasses import replace

from evengrad.patching.draft import Draft
from evengrad.patching.fragments import Arguments, Change, Insertion, Part, Replacement
from evengrad.patching.program import Program
from evengrad.patching.replacing import replaced
from evengrad.patching.setting import part_set, values_set
from evengrad.patching.steps import inserted
from evengrad.patching.wrapping import wrapped
from evengrad.training import Experiment

ALL, BUT_LAST, LAST = slice(None), slice(-1), slice(-1, None)
CHOICES = (ALL, BUT_LAST, LAST)
"""Which of the places that look alike are meant: all, all but the output's, only the output's."""


def edited(program: Program, change: Change, experiment: Experiment, choice: slice = ALL) -> Program:
    """Makes one change in the text.

    Raises:
        NotFoundError: if what it changes is not there literally.
    """
    draft = Draft()
    if isinstance(change, Replacement):
        replaced(draft, program, change, choice)
    elif isinstance(change, Arguments):
        values_set(draft, program, change)
    elif isinstance(change, Part):
        part_set(draft, program, change)
    elif isinstance(change, Insertion):
        inserted(draft, program, change)
    else:
        wrapped(draft, program, change, experiment)
    sources = dict(program.sources)
    for path, edits in draft.edits.items():
        source = program.held(path)
        sources[path] = source.edited(edits, draft.imports.get(path, ()))
    return replace(program, sources=sources)
