"""The guarded dashboard: what it shows, and what it refuses."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from nas.dashboard import make_app, serve
from nas.study import MetricSpec, Study
from search_spaces.arch import Arch
from search_spaces.errors import InputError

ROOT = Path(__file__).parents[2]
NAME = "<script>alert(1)</script> '; drop table studies"
METRICS = (MetricSpec("top1", "%", "maximize"), MetricSpec("latency", "ms", "minimize"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: trial 0 is infeasible though best, 1 and 2 are the front, 3 is dominated."""
    path = tmp_path_factory.mktemp("run")
    with Study.create(path / "study.db", NAME, METRICS, ("memory",)) as study:
        for i, (top1, latency, memory) in enumerate([(80, 1, 5), (75, 4, -1), (70, 2, -1), (69, 3, -1)]):
            values = {"top1": top1, "latency": latency}
            study.record(Arch({"depth": i}), values, {"memory": memory}, {"depth": (i, 0, 9)}, seconds=1)
        study.note("# a note <img src=x onerror=alert(1)>")
        study.note_trial(1, "the **knee**")
        (path / "page.html").write_text("<script>document.title = 'ran'</script>")
        study.attach(path / "page.html")
    (path / "front.html").write_text("<!doctype html><title>report</title>")
    return path


def call(
    app: Any, path: str, method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request through WSGI."""
    path, _, query = path.partition("?")
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    if body:
        environ["CONTENT_TYPE"] = "application/json"
    environ["HTTP_HOST"] = "127.0.0.1:8080"
    environ |= {f"HTTP_{k.upper()}": v for k, v in headers.items()}
    setup_testing_defaults(environ)
    seen: list[Any] = []
    data = b"".join(app(environ, lambda status, head, exc=None: seen.append((status, head))))
    status, head = seen[-1]
    return int(status.split()[0]), {k.lower(): v for k, v in head}, data


@pytest.fixture(scope="module")
def app(folder: Path) -> Any:
    return make_app(folder)


def test_study_is_shown_with_units_constraints_and_notes(app: Any) -> None:
    status, _, data = call(app, "/api/studies/1")
    study = json.loads(data)
    assert status == 200
    assert study["name"] == NAME
    assert study["objective_names"] == ["top1 (%)", "latency (ms)"]
    assert [t["constraints"] for t in study["trials"]] == [[5], [-1], [-1], [-1]]
    assert study["trials"][1]["note"]["body"] == "the **knee**"
    assert study["note"]["body"].startswith("# a note")
    assert [a["filename"] for a in study["artifacts"]] == ["page.html"]


def test_best_trials_are_the_feasible_front(app: Any) -> None:
    for path in ("/api/studies/1", "/api/studies/1?after=3"):
        best = json.loads(call(app, path)[2])["best_trials"]
        assert [t["number"] for t in best] == [1, 2]
    assert call(app, "/api/studies/99")[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::2]", "localhost@evil"]
)
def test_foreign_host_is_refused(app: Any, host: str) -> None:
    assert call(app, "/api/studies", host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:80"])
def test_own_host_is_answered(app: Any, host: str) -> None:
    assert call(app, "/api/studies", host=host)[0] == 200


def test_host_header_must_be_there(app: Any) -> None:
    environ: dict[str, Any] = {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(environ)
    del environ["HTTP_HOST"]
    seen: list[str] = []
    app(environ, lambda status, headers: seen.append(status))
    assert seen == ["421 Misdirected Request"]


def test_allowed_host_is_answered(folder: Path) -> None:
    app = make_app(folder, allow_hosts=["NAS.lab"])
    assert call(app, "/api/studies", host="nas.lab:8080")[0] == 200
    assert call(app, "/api/studies", host="other.lab")[0] == 421


WRITES = [
    ("POST", "/api/studies", b'{"study_name": "x", "directions": ["minimize"]}'),
    ("DELETE", "/api/studies/1", b"{}"),
    ("PUT", "/api/studies/1/note", b'{"version": 9, "body": "x"}'),
    ("POST", "/api/studies/1/rename", b'{"study_name": "x"}'),
    ("POST", "/incompatible-rdb-schema", b""),
    ("PATCH", "/nas", b""),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_writes_are_refused(app: Any, folder: Path, method: str, path: str, body: bytes) -> None:
    before = Study.read(folder).trials
    assert call(app, path, method, body)[0] == 403
    assert Study.read(folder).trials == before


def test_database_is_read_only_below_the_guard(app: Any, folder: Path) -> None:
    """Were a write to slip through a GET, SQLite would refuse it."""
    from nas.study_storage import locate, open_storage

    with pytest.raises(Exception, match="commit"):
        open_storage(locate(folder), "read").set_study_user_attr(1, "x", 1)
    assert Study.read(folder).attrs == {}


def test_writes_on_request_but_not_from_other_sites(tmp_path: Path) -> None:
    Study.create(tmp_path / "study.db", "s", METRICS).close()
    app = make_app(tmp_path, allow_writes=True)
    body = b'{"version": 1, "body": "hello"}'
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999"):
        assert call(app, "/api/studies/1/note", "PUT", body, origin=origin)[0] == 403
    assert call(app, "/api/studies/1/note", "PUT", body, origin="http://127.0.0.1:8080")[0] == 204
    assert json.loads(call(app, "/api/studies/1")[2])["note"]["body"] == "hello"


def test_artifacts_cannot_act_as_this_site(app: Any) -> None:
    artifact = json.loads(call(app, "/api/studies/1")[2])["artifacts"][0]["artifact_id"]
    status, headers, data = call(app, f"/artifacts/1/{artifact}")
    assert (status, headers["content-type"]) == (200, "text/html")
    assert b"ran" in data
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    for path in (
        "/artifacts/1/../../study.db",
        "/artifacts/1/..%2Fstudy.db",
        "/static/../_app.py",
        "/nas/study.db",
    ):
        assert call(app, path)[0] in (403, 404)


def test_front_page_lists_studies_escaped(app: Any) -> None:
    status, headers, data = call(app, "/nas")
    page = data.decode()
    assert status == 200
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &#x27;; drop table studies" in page
    assert '<a href="/dashboard/studies/1">' in page
    assert "maximize top1 (%), minimize latency (ms)" in page
    assert "/nas/report" in page
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_report_is_shown_in_a_sandbox(app: Any) -> None:
    status, headers, data = call(app, "/nas/report")
    assert (status, data) == (200, b"<!doctype html><title>report</title>")
    assert headers["content-security-policy"] == "sandbox allow-scripts"


def test_no_report_no_link(tmp_path: Path) -> None:
    Study.create(tmp_path / "study.db", "s", METRICS).close()
    app = make_app(tmp_path)
    assert b"/nas/report" not in call(app, "/nas")[2]
    assert call(app, "/nas/report")[0] == 404


def test_a_running_search_is_followed(tmp_path: Path) -> None:
    with Study.create(tmp_path / "study.db", "s", METRICS) as study:
        app = make_app(tmp_path)
        assert json.loads(call(app, "/api/studies/1")[2])["best_trials"] == []
        study.record(Arch({"depth": 1}), {"top1": 1, "latency": 1})
        assert [t["number"] for t in json.loads(call(app, "/api/studies/1")[2])["best_trials"]] == [0]


def test_missing_study_and_open_host_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no study at"):
        serve(tmp_path / "study.db")
    with pytest.raises(InputError, match=r"host 0\.0\.0\.0 would show .* ssh -L"):
        serve(folder, host="0.0.0.0")
    with pytest.raises(InputError, match="port 70000"):
        serve(folder, port=70000)
    with pytest.raises(OSError, match="cannot listen on"):
        serve(folder, host="192.0.2.1", allow_hosts=["x"])


def test_busy_port_is_one_line(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use; choose another") as error:
            serve(folder, port=port)
        assert "\n" not in str(error.value)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    code = (
        "import sys; from nas.dashboard import serve;"
        "serve(sys.argv[1], port=0, ready=lambda url: print(url, flush=True)); print('ended')"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], env=env, text=True, stdout=-1, stderr=-1, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()[1]
        yield url, process
    finally:
        process.kill()
        process.communicate()


def test_over_http_until_ctrl_c(folder: Path) -> None:
    with served(folder) as (url, process):
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"Searches" in answer.read()
        host = url.split("/")[2]
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("GET", "/static/bundle.js")
        assert connection.getresponse().status == 200
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("GET", "/nas", headers={"Host": "evil.example"})
        assert connection.getresponse().status == 421
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
        assert (process.returncode, out, errors) == (0, "ended\n", "")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_pages_in_a_browser(folder: Path, tmp_path: Path) -> None:
    with served(folder) as (url, _):

        def dom(page: str) -> str:
            flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
            command = ["chromium", *flags, "--virtual-time-budget=20000", "--dump-dom", page]
            return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

        page = dom(url.replace("/nas", "/dashboard/studies/1"))
    assert "top1 (%)" in page
    assert "latency (ms)" in page
    assert "Best Trials" in page
    assert "Trial 2" in page
    assert "Trial 0<" not in page.partition("Best Trials")[2]  # infeasible
    assert "Infeasible" in page
    assert "<script>alert(1)" not in page
