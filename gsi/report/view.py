"""`gsi view RUN_OR_DIR`: a local web page over runs, built on Starlette. It reads run folders and writes nothing.

It listens on 127.0.0.1 and answers only requests that name this host (a page of another site that resolves to this machine gets nothing), only
GET, and only runs found below the folder it was given: a run is looked up by name in that list, no path is ever built from a request.
"""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gsi.report import comparison, html, live
from gsi.report.parts import NONE
from gsi.report.read import RunView, finite, read_run
from gsi.report.samples import choices, page
from gsi.report.tally import Tally
from gsi.report.words import accuracy
from gsi.types import GsiError

MOST = 500  # runs listed
OPEN = 6  # ledgers kept open, each with its narrow copy in a temporary file of SQLite's
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"}  # fmt: skip
SCRIPTS: dict[str, Callable[[], str]] = {
    "vega.js": html.vega,
    "temml.js": functools.partial(html.script, "vendor/temml.min.js"),
    **{name: functools.partial(html.script, name) for name in ("plots.js", "samples.js", "live.js", "runs.js")},
}


class Shelf:
    """The runs below a folder, and the ledgers that are being looked at. Thread-safe: one question to a ledger at a time."""

    def __init__(self, root: Path):
        self.root = root
        self._lock = threading.Lock()
        self._open: dict[Path, tuple[threading.Lock, Tally]] = {}
        self._pages: dict[tuple[str, ...], tuple[str, str]] = {}

    def runs(self) -> dict[str, Path]:
        """Name -> folder, newest first."""
        found = [self.root] if _is_run(self.root) else sorted(_runs_below(self.root, depth=4), key=lambda p: -_changed(p))[:MOST]
        names = {path: path.resolve().name if path == self.root else str(path.relative_to(self.root)) for path in found}
        return {name: path for path, name in names.items()}

    def run(self, name: str) -> Path:
        try:
            return self.runs()[name]
        except KeyError:
            raise LookupError("There is no such run here.") from None

    def ask(self, path: Path, question: Callable[[RunView, Tally | None], Any]) -> Any:
        """Answers from a run's files as they are now."""
        run = read_run(path)
        with self._lock:
            if path not in self._open:
                try:
                    self._open[path] = threading.Lock(), Tally(path, run.config.get("accept"), run.state.get("seed") or 0)
                except GsiError:  # no ledger, or none that can be read: the run is shown without it
                    return question(run, None)
                for old in list(self._open)[:-OPEN]:
                    lock, tally = self._open.pop(old)
                    with lock:
                        tally.close()
            lock, tally = self._open[path] = self._open.pop(path)  # the latest asked for stays longest
        with lock:
            tally.refresh()
            return question(run, tally)

    def cached(self, key: tuple[str, ...], stamp: str, make: Callable[[], str]) -> str:
        """A page that is made again when its runs have moved on."""
        with self._lock:
            hit = self._pages.get(key)
        if hit and hit[0] == stamp:
            return hit[1]
        made = make()
        with self._lock:
            self._pages = {**dict(list(self._pages.items())[-OPEN:]), key: (stamp, made)}
        return made


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file()


def _changed(path: Path) -> float:
    return max((p.stat().st_mtime for p in (path / "run.json", path / "ledger.sqlite") if p.exists()), default=0.0)


def _runs_below(folder: Path, depth: int) -> list[Path]:
    found: list[Path] = []
    try:
        inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith("."))
    except OSError:  # not ours to read
        return []
    for path in inside:
        if _is_run(path):
            found.append(path)
        elif depth > 1:
            found += _runs_below(path, depth - 1)
    return found


# --------------------------------------------------------------------------------------- pages


def app(root: Path, hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]")) -> Starlette:
    """The web application. `hosts`: the host names it answers to."""
    shelf = Shelf(root)

    def listing(request: Request) -> Response:
        return HTMLResponse(html.render("runs.html", rows=_rows(shelf), root=str(root), scripts=_scripts("runs.js")))

    def one(request: Request) -> Response:
        name = request.path_params["name"]
        path = shelf.run(name)
        return HTMLResponse(shelf.cached((name,), live.version(path), lambda: _page(shelf, [name])))

    def several(request: Request) -> Response:
        names = list(dict.fromkeys(request.query_params.getlist("run")))[:12]
        if len(names) < 2:
            return PlainTextResponse("Choose at least two runs to compare.", 400)
        stamp = " ".join(live.version(shelf.run(name)) for name in names)
        return HTMLResponse(shelf.cached(tuple(names), stamp, lambda: _page(shelf, names)))

    def now(request: Request) -> Response:
        return JSONResponse(shelf.ask(shelf.run(request.path_params["name"]), live.snapshot))

    def samples(request: Request) -> Response:
        wanted = dict(request.query_params)

        def answer(run: RunView, tally: Tally | None) -> dict[str, Any]:
            if tally is None:
                raise LookupError("This run has no readable ledger.")
            return choices(tally) if "choices" in wanted else page(tally, wanted)

        try:
            return JSONResponse(shelf.ask(shelf.run(request.path_params["name"]), answer))
        except (ValueError, OverflowError):
            return PlainTextResponse("A number in this request is none.", 400)

    def static(request: Request) -> Response:
        make = SCRIPTS.get(request.path_params["file"])
        return (
            Response(make(), media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})
            if make
            else PlainTextResponse("Not found.", 404)
        )

    routes = [
        Route("/", listing),
        Route("/compare", several),
        Route("/static/{file}", static),
        Route("/live/{name:path}", now),
        Route("/samples/{name:path}", samples),
        Route("/run/{name:path}", one),
    ]
    handlers: Any = {LookupError: _missing, GsiError: _missing}
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        Middleware(_Headers),
        Middleware(GZipMiddleware, minimum_size=2000),
    ]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _missing(request: Request, problem: Exception) -> Response:
    return PlainTextResponse(str(problem), 404)


class _Headers:
    """Puts HEADERS on every answer that does not set them itself."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                have = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in HEADERS.items() if k.lower().encode() not in have),
                ]
            await send(message)

        await self.app(scope, receive, with_headers)


def _scripts(*names: str) -> list[Markup]:
    return [Markup('<script src="/static/{}"></script>').format(name) for name in names]


def _page(shelf: Shelf, names: list[str]) -> str:
    """The report page of one run or several, with samples and progress fetched from here."""

    def built(run: RunView, tally: Tally | None, name: str, prefix: str) -> tuple[dict[str, Any], Any]:
        made = html.build(run, name, prefix, tally)
        total = int(tally("SELECT count(*) FROM slim")[0][0]) if tally else 0
        made["samples"] = html.Source(total, "All rollouts of the ledger.", source=f"/samples/{quote(name)}")
        return made, comparison.side(name, run, tally) if len(names) > 1 else None

    answers = [
        shelf.ask(shelf.run(name), lambda run, tally, name=name, i=i: built(run, tally, name, f"r{i}"))  # type: ignore[misc]
        for i, name in enumerate(names, 1)
    ]
    made = [run for run, _ in answers]
    several = html.compared([side for _, side in answers]) if len(names) > 1 else None
    single = len(names) == 1
    return html.render(
        "report.html", runs=made, comparison=several, title=f"gsi view: {', '.join(names)}", data=html.data(made, several), math=True, home="/", policy=None,
        live=f"/live/{quote(names[0])}" if single else None,
        scripts=_scripts("vega.js", "temml.js", "plots.js", "samples.js", *(["live.js"] if single else [])),
    )  # fmt: skip


def _rows(shelf: Shelf) -> list[dict[str, Any]]:
    rows = []
    for name, path in shelf.runs().items():
        run = read_run(path)
        order, left = run.stages()
        last = run.final()
        rate = next(
            (hit for split in ("test", "validation") for n in sorted(run.evals, reverse=True) if (hit := accuracy(run, n, split))), None
        )
        percent = {key: f"{v:.1%}" if (v := finite(last.get(key))) is not None else NONE for key in ("tail/coverage", "tail/hard_share")}
        rows.append(
            {
                "name": name, "url": f"/run/{quote(name)}", "strategy": run.strategy, "model": run.config.get("model"), "state": live.state(run),
                "stages": f"{len(order) - len(left)} of {len(order)}", "accuracy": f"{rate.rate:.1%}" if rate else NONE, "coverage": percent["tail/coverage"],
                "hard": percent["tail/hard_share"], "tokens": f"{run.total('sample/tokens'):,}", "started": run.state.get("created_at"),
            }
        )  # fmt: skip
    return rows


# --------------------------------------------------------------------------------------- serving


def serve(root: Path, host: str = "127.0.0.1", port: int = 8765, said: Callable[[str], None] = print) -> None:
    """Serves until it is interrupted. Raises GsiError where there is no run, or the address cannot be used."""
    import uvicorn

    if not root.is_dir():
        raise GsiError(f"view: {root}: no such folder; name a run folder or one that holds runs")
    if not Shelf(root).runs():
        raise GsiError(f"view: {root}: holds no run (no folder with a run.json, four levels deep)")
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as e:
        raise GsiError(f"view: {host}:{port} cannot be used: {e.strerror}; choose another --port or --host") from e
    shown = f"[{host}]" if ":" in host else host
    hosts = ["127.0.0.1", "localhost", "[::1]", shown, *([socket.gethostname()] if host in ("0.0.0.0", "::") else [])]
    if host not in ("127.0.0.1", "localhost", "::1"):
        said(f"Mind that {host} can be reached by others, who can then read these runs: there is no password.")
    said(f"http://{shown}:{listening.getsockname()[1]}/ shows {root}; Ctrl-C ends it")
    config = uvicorn.Config(app(root, hosts), log_level="warning", lifespan="off", server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
