"""A folder and the number of a finished run -> its study's question and answer in words; a process of its own, since studies need torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import evengrad
from evengrad.errors import EvengradError, InputError
from evengrad.serve.studies import Finished, finished, rows_of

_PATIENCE = 90.0  # seconds that torch may take to be imported, and a study to answer
_KEPT = 32


class Answers:
    """Asks a process, one at a time, and keeps what it said."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, one: Finished) -> dict[str, str]:
        """Returns `number`, `question` and `answer`, or `trouble`: why there is none."""
        key = f"{one.number} {one.run.study} {one.run.finished}"
        with self._lock:
            if key not in self._kept:
                self._kept[key] = _asked(self._folder, one.number)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return self._kept[key]


def told(folder: Path, number: int) -> dict[str, str]:
    """Works out the answer, with torch.

    Raises:
        EvengradError: if the run, or its study, is not there, or the study was changed since.
    """
    from evengrad.lab.factors import build
    from evengrad.lab.studies import discovered

    one = next((found for found in finished(folder) if found.number == number), None)
    if one is None:
        raise InputError(f"there is no run number {number}")
    if one.run.file or one.run.study not in discovered():  # a store from elsewhere names no file that is run here
        raise InputError(
            f"this study is a file of its own, which is not run from here; `evengrad study show {one.run.study}` tells its answer"
        )
    study = build(discovered()[one.run.study], one.run.fields)
    return {"number": study.number, "question": study.question, "answer": study.answer(rows_of(folder, one.run))}


def _asked(folder: Path, number: int) -> dict[str, str]:
    home = str(Path(evengrad.__file__).parents[1])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "evengrad.serve.answer", str(folder), str(number)],
            capture_output=True,
            timeout=_PATIENCE,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        found: dict[str, str] = json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        return {"trouble": f"the answer could not be worked out ({type(error).__name__})"}
    return found


def main() -> None:
    """Prints the answer as JSON."""
    try:
        found = told(Path(sys.argv[1]), int(sys.argv[2]))
    except EvengradError as error:
        found = {"trouble": str(error)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
