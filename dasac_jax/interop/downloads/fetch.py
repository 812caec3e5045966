"""One file over HTTP(S) into a `.part` file: resumed where possible, retried where it helps."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dasac_jax.errors import UserError
from dasac_jax.version import __version__

_PIECE = 1 << 18
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may differ a moment later
# Trying again helps none of these before anything has arrived.
_HOPELESS = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)

Report = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Patience:
    """timeout: seconds without a byte. attempts: in a row without progress. pause: before the
    second attempt, in seconds; it doubles with each further one."""

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0


PATIENT = Patience()


class _DroppedError(Exception):
    """The transfer ended early, for a reason that may pass."""


def check_url(url: str) -> str:
    """The URL itself. Raises UserError unless it is plain http or https."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:
        raise UserError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host or not re.fullmatch(r"[!-~]+", url):
        raise UserError(f"{url!r}: only URLs that begin with http:// or https:// are fetched")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise UserError(f"{url!r}: give it without user, password, '?' and '#'")
    return url


def is_page(head: bytes, content_type: str = "") -> bool:
    """Whether a file that begins so is a web page, as servers give instead of an error."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return True
    # Both formats of weight files are told by their first bytes, whatever a server calls them.
    return content_type == "text/html" and not head.startswith((b"PK", b"\x80"))


def fetch(
    url: str,
    part: Path,
    *,
    report: Report,
    note: Callable[[str], None],
    resume_unmarked: bool = True,
    patience: Patience = PATIENT,
) -> bool:
    """Load `url` into `part`, going on behind what is there already.

    Beside it lies `part`.mark while it is incomplete: the server's mark (ETag or date) of the
    version, so that two versions are never mixed. resume_unmarked: go on even where the server
    gave none, which wants a checksum afterwards. report: called with bytes there and in all
    (None if the server does not tell). note: called with a line for each new attempt.

    Returns whether the file came in more than one piece. Raises UserError where the server
    refuses, sends a web page or stays away, or where the file cannot be written; what has
    arrived stays.
    """
    check_url(url)
    try:
        return _persist(url, part, report, note, resume_unmarked, patience)
    except OSError as error:  # the network's have become others: this is a file's
        raise UserError(f"cannot write {error.filename or part}: {_reason(error)}") from error


def _persist(
    url: str,
    part: Path,
    report: Report,
    note: Callable[[str], None],
    resume_unmarked: bool,
    patience: Patience,
) -> bool:
    """`fetch`, but for what file systems do wrong."""
    mark_file = part.with_name(part.name + ".mark")
    initial = furthest = _size(part)
    failures = 0
    while True:
        try:
            begun = furthest > initial
            pieces = _transfer(
                url, part, mark_file, report, resume_unmarked, patience.timeout, begun
            )
            mark_file.unlink(missing_ok=True)
            return pieces
        except _DroppedError as error:
            there = _size(part)
            failures = 0 if there > furthest else failures + 1
            furthest = max(furthest, there)
            if failures >= patience.attempts:
                raise UserError(
                    f"{url}: {error}; gave up after {failures} attempts without progress "
                    f"(the same command goes on at byte {there})"
                ) from error
            pause = patience.pause * 2 ** max(0, failures - 1)
            note(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


def _transfer(
    url: str,
    part: Path,
    mark_file: Path,
    report: Report,
    resume_unmarked: bool,
    timeout: float,
    begun: bool,
) -> bool:
    """One request. Returns whether it went on behind what was there."""
    mark = _clean(mark_file.read_bytes().decode("ascii", "ignore")) if mark_file.exists() else ""
    start = _size(part) if mark or resume_unmarked else 0
    headers = {"User-Agent": f"dasac-jax/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if mark:
            headers["If-Range"] = mark
    with _open(url, headers, timeout, begun) as response:
        new_mark = _mark(response.headers)
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") != f"bytes */{start}":
                part.unlink()
                raise _DroppedError("what was here is no beginning of the server's file")
            report(start, start)
            return True
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            total = _continues(response.headers, start)
            if total is None or (mark and new_mark and mark != new_mark):
                part.unlink(missing_ok=True)
                raise _DroppedError("the server sent another piece than what is missing")
        elif response.status == HTTPStatus.OK:
            start, total = 0, _number(response.headers.get("Content-Length"))
        else:
            raise UserError(f"{url}: the server answers {_answer(response.status)}, not the file")
        piece = _read(response)
        if not start and is_page(piece, response.headers.get_content_type()):
            raise UserError(f"{url}: the server sends a web page instead of the file")
        _check_room(part, (total or 0) - start)
        if not start:
            part.unlink(missing_ok=True)  # first: old bytes must not stand under the new mark
        mark_file.write_bytes(new_mark.encode())
        _receive(response, piece, part, start, total, report)
    return start > 0


def _receive(
    response: http.client.HTTPResponse,
    piece: bytes,
    part: Path,
    there: int,
    total: int | None,
    report: Report,
) -> None:
    """Write a response's body behind the `there` bytes of `part`; `piece` is its beginning."""
    with open(part, "ab") as stream:
        while piece:
            stream.write(piece)
            there += len(piece)
            report(there, total)
            piece = _read(response)
    if total is not None and there != total:
        raise _DroppedError(f"the connection ended at byte {there} of {total}")


def _open(url: str, headers: dict[str, str], timeout: float, begun: bool) -> Any:
    """The response, also to 416. begun: something has arrived, so the host has been there."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,  # leads to no other scheme: none has a handler here
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
            return error
        with error:
            answer = f"the server answers {_answer(error.code)}"
        if error.code in _PASSING:
            raise _DroppedError(answer) from error
        raise UserError(f"{url}: {answer}, not the file") from error
    except urllib.error.URLError as error:
        if not isinstance(error.reason, OSError) or (
            isinstance(error.reason, _HOPELESS) and not begun
        ):
            raise UserError(f"{url}: cannot be reached: {_reason(error.reason)}") from error
        raise _DroppedError(f"no connection: {_reason(error.reason)}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(f"no answer: {_reason(error)}") from error


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(f"the connection broke off: {_reason(error)}") from error


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(f"{part.parent} has {free} bytes free, {part.name} needs {needed} more")


def _continues(headers: http.client.HTTPMessage, start: int) -> int | None:
    """The whole file's size, if these are bytes from `start` on."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    return int(match[2]) if match and int(match[1]) == start else None


def _mark(headers: http.client.HTTPMessage) -> str:
    """What tells this version of the file from others, fit for If-Range; or ""."""
    tag = headers.get("ETag", "")
    # A weak tag (W/"…") does not promise the same bytes.
    return _clean(tag if tag.startswith('"') else headers.get("Last-Modified", ""))


def _clean(mark: str) -> str:
    """The mark, if it can stand in a request."""
    return mark if re.fullmatch(r"[ -~]*", mark) else ""


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d+", text) else None


def _answer(code: int) -> str:
    """ "404 Not Found", in words of our own: the server's may hold anything."""
    known = [status.phrase for status in HTTPStatus if status == code]
    return " ".join([str(code), *known])


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
