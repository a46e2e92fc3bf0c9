"""The Optuna dashboard on our studies, behind a guard.

The dashboard has no password, answers to any Host name and sends stored files as pages of its own origin.
`make_app` wraps it: only known Host names (against DNS rebinding), nothing but reading unless asked, stored
files in a sandbox. It also makes "best trials" leave out the infeasible, which the dashboard (0.21) does not,
and adds the page /nas: the studies, and the report of the run when there is one.
"""

from __future__ import annotations

import errno
import html
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from nas.study_storage import Location, Storage, check_database, locate, open_storage
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from bottle import Bottle
    from optuna.storages import RDBStorage

READING = ("GET", "HEAD", "OPTIONS")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
REPORT = "front.html"  # beside the database, written by the search
SANDBOX = ("/artifacts/", "/nas/report")


def serve(
    storage: Storage,
    *,
    artifacts: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    allow_writes: bool = False,
    allow_hosts: Sequence[str] = (),
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the dashboard until Ctrl-C, calling `ready` with its URL once it answers.

    `port` 0 takes a free one. `allow_hosts` are the names, as a browser's address line has them, under which
    other machines may reach a `host` that is not loopback.

    Raises:
        InputError: no study there, or a host open to the network without `allow_hosts`.
        OSError: the port is taken, or the host is not one of this machine's.
    """
    if not _is_loopback(host) and not allow_hosts:
        raise InputError(
            f"host {host} would show the studies, without a password, to all who can reach this machine; "
            f"allow the host names to answer to, or use a tunnel: ssh -L {port}:127.0.0.1:{port} MACHINE"
        )
    app = make_app(storage, artifacts=artifacts, allow_writes=allow_writes, allow_hosts=(host, *allow_hosts))
    with _bind(host, port) as server:
        server.set_app(app)
        if ready is not None:
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{server.server_port}/nas")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return


def make_app(
    storage: Storage,
    *,
    artifacts: Path | None = None,
    allow_writes: bool = False,
    allow_hosts: Sequence[str] = (),
) -> WSGIApplication:
    """The guarded dashboard as a WSGI application. `artifacts` defaults to the folder beside a SQLite file.

    Without `allow_writes` the database itself is opened read-only.

    Raises:
        InputError: no study there, or a damaged database.
        OSError: the database cannot be opened.
    """
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    location = locate(storage)
    check_database(location)
    backend = open_storage(location, "write" if allow_writes else "read")
    if artifacts is None and location.path is not None:
        artifacts = location.path.parent / "artifacts"
    store = FileSystemArtifactStore(artifacts) if artifacts is not None else None
    app = wsgi(backend, artifact_store=store)
    _show_feasible_best(app, backend)
    _add_pages(app, backend, location)
    return _guard(app, {*LOOPBACK, *(name.lower() for name in allow_hosts)}, allow_writes)


def _guard(app: WSGIApplication, hosts: set[str], allow_writes: bool) -> WSGIApplication:
    def refuse(start: StartResponse, status: str, text: str) -> Iterable[bytes]:
        body = f"{text}\n".encode()
        start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
        return [body]

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        if _host_name(host) not in hosts:
            return refuse(start_response, "421 Misdirected Request", "not a host name of this server")
        if environ["REQUEST_METHOD"] not in READING:
            if not allow_writes:
                return refuse(
                    start_response, "403 Forbidden", "read only; writes are allowed only on request"
                )
            origin = environ.get("HTTP_ORIGIN")
            if origin is not None and origin.partition("://")[2] != host:
                return refuse(start_response, "403 Forbidden", "a page of another site may not write here")
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # the dashboard fails without one
        sandboxed = environ.get("PATH_INFO", "").startswith(SANDBOX)

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            kept = [h for h in headers if h[0].lower() != "access-control-allow-origin"]
            kept += [("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "SAMEORIGIN")]
            kept += [("Referrer-Policy", "no-referrer")]
            if sandboxed:  # a stored page may be anybody's: it must not act as this origin
                scripts = " allow-scripts" if environ["PATH_INFO"].startswith("/nas/report") else ""
                kept = [h for h in kept if h[0].lower() != "content-security-policy"]
                kept += [("Content-Security-Policy", f"sandbox{scripts}")]
            return start_response(status, kept, exc_info)

        return app(environ, start)

    return guarded


def _show_feasible_best(app: Bottle, storage: RDBStorage) -> None:
    """Make a study's "best trials" those that Optuna calls best: the front of the feasible ones."""
    import optuna
    from optuna_dashboard._serializer import serialize_frozen_trial

    studies: dict[int, optuna.Study] = {}  # each keeps the trials that it has read

    def honest(plain: Callable[[int], Any]) -> Callable[[int], Any]:
        def detail(study_id: int) -> Any:
            shown = plain(study_id)
            if isinstance(shown, dict) and "best_trials" in shown and not shown.get("is_preferential"):
                if study_id not in studies:
                    name = storage.get_study_name_from_id(study_id)
                    studies[study_id] = optuna.load_study(study_name=name, storage=storage)
                attrs = storage.get_study_system_attrs(study_id)
                best = studies[study_id].best_trials
                shown["best_trials"] = [serialize_frozen_trial(study_id, t, attrs) for t in best]
            return shown

        return detail

    for route in app.routes:
        if route.rule == "/api/studies/<study_id:int>" and route.method == "GET":
            route.callback = honest(route.callback)
            route.reset()


def _add_pages(app: Bottle, storage: RDBStorage, location: Location) -> None:
    from bottle import HTTPResponse, static_file

    report = location.path.parent / REPORT if location.path is not None else None

    def front() -> HTTPResponse:
        page = _front_page(storage, report is not None and report.is_file())
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
        return HTTPResponse(page, headers=headers)

    def show_report() -> HTTPResponse:
        if report is None:
            return HTTPResponse("no report", status=404)
        return static_file(report.name, root=str(report.parent), mimetype="text/html")

    app.get("/nas", callback=front)
    app.get("/nas/report", callback=show_report)


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .8rem;"
    "border-bottom:1px solid #ddd;overflow-wrap:anywhere}td.n{text-align:right}th.n{text-align:right}"
    "@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}a{color:#8ab4f8}"
    "th,td{border-color:#444}}"
)


def _front_page(storage: RDBStorage, has_report: bool) -> str:
    rows = []
    for study in storage.get_all_studies():
        metrics = study.user_attrs.get("metrics", [])
        what = ", ".join(
            f"{m['direction']} {m['name']}" + (f" ({m['unit']})" if m["unit"] else "") for m in metrics
        )
        rows.append(
            f'<tr><td><a href="/dashboard/studies/{study._study_id}">{html.escape(study.study_name)}</a></td>'
            f'<td>{html.escape(what)}</td><td class="n">{storage.get_n_trials(study._study_id)}</td></tr>'
        )
    listed = "".join(rows) or '<tr><td colspan="3">no study yet</td></tr>'
    report = '<p><a href="/nas/report">Report of this run</a></p>' if has_report else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Searches</title><style>{STYLE}</style>'
        f"<h1>Searches</h1>{report}"
        f'<table><tr><th>Study<th>Metrics<th class="n">Trials</tr>{listed}</table></html>'
    )


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        super().server_bind()


class _Silent(WSGIRequestHandler):
    timeout = 60  # seconds without a byte, after which a connection is dropped

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a library does not print."""


def _bind(host: str, port: int) -> _Server:
    if not 0 <= port <= 65535:
        raise InputError(f"port {port} is not between 0 and 65535")
    kind = type("Server", (_Server,), {"address_family": socket.AF_INET6}) if ":" in host else _Server
    try:
        return kind((host, port), _Silent)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                error.errno, f"port {port} of {host} is in use; choose another, or 0 for any"
            ) from None
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from None


def _host_name(header: str) -> str:
    """The name in a Host header: without its port, without the brackets of an IPv6 address."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
