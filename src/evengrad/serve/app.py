"""A folder of runs and a token -> the application: which address shows what."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from evengrad.errors import EvengradError, InputError
from evengrad.report.document import program, resource
from evengrad.report.html import render
from evengrad.serve.answer import Answers
from evengrad.serve.compare_page import compare_page
from evengrad.serve.frame import page, trouble
from evengrad.serve.guard import Guard
from evengrad.serve.live import changes, stream
from evengrad.serve.play.desk import Desk
from evengrad.serve.play.page import play_page
from evengrad.serve.reports import Reports
from evengrad.serve.rules_page import rules_page
from evengrad.serve.run_page import broken_page, run_page, runs_page
from evengrad.serve.shelf import Entry, Shelf, key_of
from evengrad.serve.studies import finished, rows_of
from evengrad.serve.studies_page import studies_page, study_page
from evengrad.serve.summaries import Summaries
from evengrad.serve.trash_page import trash_page
from evengrad.store import list_runs


@cache
def _own(name: str) -> str:
    return files("evengrad.serve").joinpath("static", name).read_text(encoding="utf-8")


_STATIC: dict[str, tuple[Callable[[], str], str]] = {  # name in an address -> what it is: nothing else can be asked for
    "report.css": (lambda: resource("page.css"), "text/css"),
    "report.js": (lambda: f"{program()}\nexport {{ start }};\n", "text/javascript"),
    "serve.css": (partial(_own, "serve.css"), "text/css"),
    "icon.svg": (partial(_own, "icon.svg"), "image/svg+xml"),
    **{
        f"{name}.js": (partial(_own, f"{name}.js"), "text/javascript")
        for name in ("charts", "compare", "play", "run", "runs", "study", "talk", "trash")
    },
}


def create_app(store: Path, *, token: str, host: str = "127.0.0.1", leaving: Callable[[], bool] = lambda: False) -> Starlette:
    """Returns the application.

    Args:
        store: Folder of runs, and of studies.
        token: What every change must bring, and beyond loopback every request.
        host: Address that is listened on.
        leaving: Whether the server is about to end; open streams end then.
    """
    place = Place(store, token, leaving)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        place.summaries.start()
        yield
        place.summaries.stop()
        await place.desk.close()

    routes = [
        Route("/", place.runs),
        Route("/api/runs", place.list),
        Route("/runs/{key}", place.run),
        Route("/runs/{key}/article", place.article),
        Route("/runs/{key}/part", place.part),
        Route("/runs/{key}/events", place.events),
        Route("/runs/{key}/report.html", place.download_page),
        Route("/runs/{key}/report.json", place.download_json),
        Route("/runs/{key}/delete", place.delete, methods=["POST"]),
        Route("/trash", place.trash),
        Route("/trash/{key}/restore", place.restore, methods=["POST"]),
        Route("/compare", place.compare),
        Route("/studies", place.studies),
        Route("/studies/{number:int}", place.study),
        Route("/studies/{number:int}/answer", place.answer),
        Route("/rules", lambda _: RedirectResponse("/rules/index.html")),
        Route("/rules/{name}", _rule),
        Route("/play", place.play),
        Route("/play/do", place.desk.do, methods=["POST"]),
        Route("/play/frames", place.desk.frames),
        Route("/static/{name}", _static),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, host=host, token=token)],
        lifespan=lifespan,
        exception_handlers={404: _missing, _Gone: _missing},
    )


class Place:
    """Answers requests about what lies in one folder."""

    def __init__(self, store: Path, token: str, leaving: Callable[[], bool]) -> None:
        self._shelf, self._token, self._reports, self._leaving = Shelf(store), token, Reports(), leaving
        self._answers = Answers(store)
        self.summaries, self.desk = Summaries(self._shelf, self._reports), Desk(leaving)

    async def runs(self, _: Request) -> Response:
        """The page of the list."""
        return HTMLResponse(runs_page(str(self._shelf.folder), self._token))

    async def list(self, _: Request) -> Response:
        """The rows of the list."""
        return JSONResponse(self.summaries.rows(), headers={"x-evengrad-trash": str(len(self._shelf.trash.entries()))})

    async def run(self, request: Request) -> Response:
        """One run's page."""
        entry, salvage = self._entry(request), "salvage" in request.query_params

        def shown() -> str:
            try:
                waiting = not salvage and self._reports.takes_long(entry)
                return run_page(entry, None if waiting else self._reports.of(entry, salvage=salvage))
            except InputError as error:
                return broken_page(entry, str(error), salvage=salvage)

        return HTMLResponse(await run_in_threadpool(shown))

    async def article(self, request: Request) -> Response:
        """One run's report alone, for a page that follows it."""
        return await self._of(self._entry(request), lambda entry: HTMLResponse(self._reports.of(entry).article))

    async def part(self, request: Request) -> Response:
        """Exact numbers of a part of a run."""
        asked = request.query_params
        steps, layers = (_range(asked.get(name, "")) for name in ("steps", "layers"))
        return await self._of(
            self._entry(request), lambda entry: JSONResponse(self._reports.of(entry).part(asked.get("signal", ""), steps, layers))
        )

    async def download_page(self, request: Request) -> Response:
        """One run's report as the file that `evengrad report -o` writes."""
        return await self._of(self._entry(request), lambda e: _file(e, "html", "text/html", render(self._reports.of(e).report)))

    async def download_json(self, request: Request) -> Response:
        """One run's report as JSON."""
        return await self._of(self._entry(request), lambda e: _file(e, "json", "application/json", self._reports.of(e).report.to_json()))

    async def events(self, request: Request) -> Response:
        """Says when a run was written to."""
        return stream(changes(self._shelf, self._entry(request), self._leaving))

    async def delete(self, request: Request) -> Response:
        """Moves a run to the trash."""

        def done(entry: Entry) -> Response:
            place = self._shelf.discard(entry)
            return JSONResponse({"said": f"{entry.path.name} was moved to the trash.", "id": key_of(place)})

        return await self._of(self._entry(request), done)

    async def trash(self, _: Request) -> Response:
        """What was deleted."""

        def shown() -> str:
            entries = {entry.path: entry for entry in self._shelf.trash.entries().values()}
            return trash_page([(entries[run.path], run) for run in list_runs(self._shelf.trash.folder) if run.path in entries], self._token)

        return HTMLResponse(await run_in_threadpool(shown))

    async def restore(self, request: Request) -> Response:
        """Moves a run from the trash back."""

        def done(entry: Entry) -> Response:
            place = self._shelf.restore(entry)
            return JSONResponse({"said": f"{place.name} is back among the runs.", "id": key_of(place)})

        return await self._of(self._entry(request, self._shelf.trash), done)

    async def compare(self, request: Request) -> Response:
        """Two runs side by side."""
        first, second = (request.query_params.get(name, "") for name in "ab")
        choices = [(row["id"], row["name"]) for row in self.summaries.rows()]
        entries = self._shelf.entries()

        def shown() -> str:
            if first not in entries or second not in entries:
                return compare_page(choices, first, second, None, "One of these runs is gone." if first and second else "")
            try:
                reports = (self._reports.of(entries[first]).report, self._reports.of(entries[second]).report)
            except InputError as error:
                return compare_page(choices, first, second, None, str(error))
            return compare_page(choices, first, second, reports)

        return HTMLResponse(await run_in_threadpool(shown))

    async def studies(self, _: Request) -> Response:
        """Finished runs of studies."""

        def shown() -> str:
            try:
                return studies_page(finished(self._shelf.folder))
            except InputError as error:
                return studies_page((), str(error))

        return HTMLResponse(await run_in_threadpool(shown))

    async def study(self, request: Request) -> Response:
        """One finished run of a study."""
        number, value = request.path_params["number"], request.query_params.get("value", "")

        def shown() -> Response:
            try:
                one = next((found for found in finished(self._shelf.folder) if found.number == number), None)
                if one is None:
                    return _gone("study", f"run number {number}")
                return HTMLResponse(study_page(one, rows_of(self._shelf.folder, one.run), value))
            except (InputError, ValueError, TypeError) as error:  # a foreign file can hold anything
                return HTMLResponse(studies_page((), str(error)))

        return await run_in_threadpool(shown)

    async def answer(self, request: Request) -> Response:
        """What a study says of one of its runs."""
        number = request.path_params["number"]

        def asked() -> Response:
            try:
                one = next((found for found in finished(self._shelf.folder) if found.number == number), None)
            except InputError as error:
                return PlainTextResponse(str(error), 409)
            return _gone("study", f"run number {number}") if one is None else JSONResponse(self._answers.of(one))

        return await run_in_threadpool(asked)

    async def play(self, _: Request) -> Response:
        """The playground; its worker is started while the page is read."""
        self.desk.prepare()
        return HTMLResponse(play_page(self._token))

    def _entry(self, request: Request, shelf: Shelf | None = None) -> Entry:
        entry = (shelf or self._shelf).entry(request.path_params["key"])
        if entry is None:
            raise _Gone
        return entry

    async def _of(self, entry: Entry, make: Callable[[Entry], Response]) -> Response:
        try:
            return await run_in_threadpool(make, entry)
        except EvengradError as error:
            return PlainTextResponse(str(error), 409)


class _Gone(Exception):  # noqa: N818  # no error of ours: the page says it
    """A run that is not, or no longer, in the folder, or a part of it that nobody can mean."""


async def _missing(_: Request, __: Exception) -> Response:
    return _gone("page", "this address")


def _gone(kind: str, what: str) -> Response:
    return HTMLResponse(page("Not here", trouble("Not here", f"There is no {kind} for {what}.")), 404)


async def _rule(request: Request) -> Response:
    text = await run_in_threadpool(rules_page, request.path_params["name"].removesuffix(".html"))
    return _gone("rule", "this code") if text is None else HTMLResponse(text)


async def _static(request: Request) -> Response:
    found = _STATIC.get(request.path_params["name"])
    if found is None:
        return _gone("file", "this name")
    return Response(found[0](), media_type=found[1], headers={"cache-control": "no-cache"})


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and len(text) < 40):
        raise _Gone
    return int(first), int(last)


def _file(entry: Entry, ending: str, kind: str, content: str) -> Response:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", entry.path.stem).strip("._") or "report"
    body = content.encode("utf-8", "replace")
    return Response(body, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}.{ending}"'})
