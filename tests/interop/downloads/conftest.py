"""A local file server that can be told to misbehave, and the published files on it."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from rich.console import Console

from dasac_jax.interop.downloads import download
from dasac_jax.interop.downloads.fetch import fetch
from dasac_jax.interop.published import Published


@dataclass
class FileServer:
    """files: contents by path. The rest says what goes wrong.

    drops: so many bytes of each body are sent before the connection ends, one entry a request.
    answers: status codes sent instead, one entry a request. requests: the headers that came.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    mark: str = '"{}"'  # the ETag, made of a hash
    heeds_marks: bool = True
    lengths: bool = True
    content_type: str = "application/octet-stream"
    drops: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    shift: int = 0  # bytes by which pieces start elsewhere than asked for
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def add(self, path: str, content: bytes) -> str:
        self.files[path] = content
        return f"{self.url}/{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        plan: FileServer = self.server.plan
        path = self.path.lstrip("/")
        plan.requests.append((path, dict(self.headers)))
        self.close_connection = True
        if plan.answers:
            self._answer(plan.answers.pop(0), {"Content-Length": "0"})
        elif path in plan.redirects:
            self._answer(302, {"Location": plan.redirects[path], "Content-Length": "0"})
        elif path not in plan.files:
            self._answer(404, {"Content-Length": "0"})
        else:
            self._send(plan, plan.files[path])

    def _answer(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, plan: FileServer, content: bytes) -> None:
        mark = plan.mark.format(hashlib.sha256(content).hexdigest()[:8])
        headers = {"Content-Type": plan.content_type} | ({"ETag": mark} if mark else {})
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        changed = plan.heeds_marks and self.headers.get("If-Range", mark) != mark
        code, body = 200, content
        if wanted and plan.ranges and not changed:
            start = int(wanted[1]) + plan.shift
            if start >= len(content):
                headers |= {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}
                return self._answer(416, headers)
            code, body = 206, content[start:]
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if plan.lengths:
            headers["Content-Length"] = str(len(body))
        self._answer(code, headers)
        self.wfile.write(body[: plan.drops.pop(0)] if plan.drops else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server on 127.0.0.1, as long as the test runs."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.plan = FileServer(f"http://127.0.0.1:{running.server_port}")
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running.plan
        running.shutdown()
        thread.join()


@dataclass
class Seen:
    """What a transfer reports."""

    reports: list[tuple[int, int | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, received: int, total: int | None) -> None:
        self.reports.append((received, total))


@pytest.fixture
def seen():
    """An empty record to give to `load`."""
    return Seen()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds that pooch would have waited between its attempts."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def load():
    """Downloads one file; what it reports goes to `seen`. fault: what is wrong with its content."""

    def run(url, target, seen=None, fault=lambda content: None):
        seen = seen or Seen()
        check = {"fault": lambda path: fault(path.read_bytes()), "report": seen.report}
        fetch(url, target, **check, log=seen.notes.append)

    return run


@pytest.fixture
def target(tmp_path):
    return tmp_path / "in" / "file.pth"


@pytest.fixture
def files(server):
    """Four published files of a server on this machine."""
    url = server.add
    final, other, imagenet, shares = (
        b"PK" + np.random.default_rng(seed).bytes(300_000) for seed in range(4)
    )
    return (
        Published(
            "net.pth", url("models/net.pth", imagenet), "imagenet", ("gta_r101", "gta_fcn"),
            ("deeplabv2_a", "fcn_b"),
            sha256=hashlib.sha256(imagenet).hexdigest()[:8],
        ),
        Published(
            "a/final.pth", url("data/a/final.pth", final), "final", ("gta_r101",), ("deeplabv2_a",),
            md5=hashlib.md5(final).hexdigest(), size="300 KiB", val=1.0,
        ),
        Published(
            "b/final.pth", url("data/b/final.pth", other), "final", ("gta_fcn",), ("fcn_b",),
            md5=hashlib.md5(other).hexdigest(),
        ),
        Published(
            "shares.data", url("data/shares.data", shares), "weights", ("gta_r101",),
            ("deeplabv2_a",),
        ),
    )  # fmt: skip


@pytest.fixture
def command(files, tmp_path, capsys):
    """Runs the command on these files; returns the exit code, stdout and stderr."""

    def run(*arguments, files=files, output=tmp_path / "out"):
        screen = io.StringIO()
        code = download.main(
            [*map(str, arguments), "--output", str(output)],
            files=files,
            console=Console(file=screen, width=160),
        )
        return code, screen.getvalue(), capsys.readouterr().err

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
