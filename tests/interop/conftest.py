"""A file server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


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
