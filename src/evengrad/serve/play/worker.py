"""Lines of JSON in -> lines of JSON out: the process that networks run in (`python -m evengrad.serve.play.worker`)."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from evengrad.errors import EvengradError
from evengrad.serve.play.state import State

if TYPE_CHECKING:
    from evengrad.report import Report
    from evengrad.serve.play.runs import Workshop

Message = dict[str, Any]


def main() -> None:
    """Answers until its input ends; what anything prints goes to the error stream."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    from evengrad.serve.play.runs import Workshop

    shop = Workshop()
    shop.look(State(depth=2))  # what the first pass costs is paid before it is waited for
    worker = Worker(asked, out, shop)
    worker.say({"ready": True})
    worker.run()


class Worker:
    """Takes one question after the other; while it trains, questions that need no other network are answered in between."""

    def __init__(self, asked: queue.Queue[Message], out: TextIO, shop: Workshop) -> None:
        self._asked, self._out, self._shop = asked, out, shop

    def say(self, message: Message) -> None:
        """Writes one line."""
        self._out.write(json.dumps(message, allow_nan=False) + "\n")
        self._out.flush()

    def run(self) -> None:
        """Works until the process ends."""
        while True:
            self._answer(self._asked.get())

    def _answer(self, message: Message, seen: Report | None = None) -> None:
        try:
            self.say({"id": message["id"], **self._done(message, seen)})
        except EvengradError as error:
            self.say({"id": message["id"], "error": str(error)})
        except Exception as error:  # the page says it; the process lives on
            self.say({"id": message["id"], "error": f"{type(error).__name__}: {error}"})

    def _done(self, message: Message, seen: Report | None) -> Message:
        state, what = State.of(message.get("state", {})), message["do"]
        if what == "look":
            return dict(self._shop.look(state, with_points=bool(message.get("points"))))
        if what == "judge":
            return dict(self._shop.judge(state, seen))
        if what == "fix":
            return dict(self._shop.fix(state, named=str(message.get("named", ""))))
        if what == "train":
            return self._train(message, state)
        return {"stopped": True}

    def _train(self, message: Message, state: State) -> Message:
        from evengrad.serve.play.runs import Interrupted

        run = message["id"]
        self.say({"id": run, "started": True})

        def pause(report: Callable[[], Report]) -> None:
            while not self._asked.empty():
                asked = self._asked.queue[0]
                if asked["do"] != "judge" or State.of(asked.get("state", {})) != state:
                    raise Interrupted
                self._answer(self._asked.get(), report())

        try:
            done = self._shop.train(state, lambda frame: self.say({"run": run, **frame}), pause)
        except Interrupted:
            self.say({"run": run, "ended": "stopped"})
            return {"ended": True}
        except EvengradError as error:
            self.say({"run": run, "ended": str(error)})
            return {"ended": True}
        self.say({"run": run, "ended": "done", **done})
        return {"ended": True}


def _listen(asked: queue.Queue[Message]) -> None:
    for line in sys.stdin:
        asked.put(json.loads(line))
    os._exit(0)  # the server is gone


if __name__ == "__main__":
    main()
