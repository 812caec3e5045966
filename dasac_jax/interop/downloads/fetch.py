"""Downloads one file over HTTP(S) to a `.part` file, with resumption and repeated attempts."""

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

_CHUNK = 1 << 18
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # status codes of temporary failures
# Before any byte has arrived, these errors mean a wrong address, which no repetition mends.
_PERMANENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)

Report = Callable[[int, int | None], None]


@dataclass(frozen=True)
class RetryPolicy:
    """When a transfer is tried again, and when it is given up.

    timeout: seconds without a byte after which a connection counts as lost. attempts: the number
    of failures in a row, without a new byte, that ends the transfer. pause: seconds before the
    second attempt; the pause doubles before each further one.
    """

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0


DEFAULT_POLICY = RetryPolicy()


class _TemporaryError(Exception):
    """The transfer ended early for a reason that may be temporary, so it is tried again."""


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
    """Whether a file beginning with `head` is a web page, which some servers send for errors."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return True
    # Files of weights are known by their first bytes, also where the server gives a wrong type.
    return content_type == "text/html" and not head.startswith((b"PK", b"\x80"))


def fetch(
    url: str,
    part: Path,
    *,
    report: Report,
    log: Callable[[str], None],
    resume_without_validator: bool = True,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> bool:
    """Download `url` to `part`; where that holds the file's beginning, only the rest is requested.

    While the file is incomplete, `part`.mark beside it holds the validator (ETag or date) that the
    server gave for this version, so that two versions are never mixed. resume_without_validator:
    whether to continue even where the server gave none; verify the checksum afterwards. report:
    called with the number of bytes received and the total (None if the server does not say). log:
    called with a line of text for each new attempt.

    Returns whether the file came in more than one piece. Raises UserError where the server
    refuses, sends a web page or cannot be reached, and where the file cannot be written; received
    bytes are kept.
    """
    check_url(url)
    try:
        return _fetch_with_retries(url, part, report, log, resume_without_validator, policy)
    except OSError as error:  # errors of the network were handled below: this one is of a file
        raise UserError(f"cannot write {error.filename or part}: {_reason(error)}") from error


def _fetch_with_retries(
    url: str,
    part: Path,
    report: Report,
    log: Callable[[str], None],
    resume_without_validator: bool,
    policy: RetryPolicy,
) -> bool:
    """Transfer until the file is complete. As `fetch`, but raises OSError for errors of files."""
    validator_file = part.with_name(part.name + ".mark")
    initial = furthest = _size(part)
    failures = 0
    while True:
        try:
            begun = furthest > initial
            pieces = _transfer(
                url, part, validator_file, report, resume_without_validator, policy.timeout, begun
            )
            validator_file.unlink(missing_ok=True)
            return pieces
        except _TemporaryError as error:
            received = _size(part)
            failures = 0 if received > furthest else failures + 1
            furthest = max(furthest, received)
            if failures >= policy.attempts:
                raise UserError(
                    f"{url}: {error}; gave up after {failures} attempts without progress "
                    f"(the same command goes on at byte {received})"
                ) from error
            pause = policy.pause * 2 ** max(0, failures - 1)
            log(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


def _transfer(
    url: str,
    part: Path,
    validator_file: Path,
    report: Report,
    resume_without_validator: bool,
    timeout: float,
    begun: bool,
) -> bool:
    """Make one request. Returns whether it continued a file that had been begun."""
    stored = validator_file.read_bytes() if validator_file.exists() else b""
    validator = _printable(stored.decode("ascii", "ignore"))
    start = _size(part) if validator or resume_without_validator else 0
    headers = {"User-Agent": f"dasac-jax/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with _open(url, headers, timeout, begun) as response:
        new_validator = _validator(response.headers)
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") != f"bytes */{start}":
                part.unlink()
                raise _TemporaryError("what was here is no beginning of the server's file")
            report(start, start)
            return True
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            total = _continues(response.headers, start)
            if total is None or (validator and new_validator and validator != new_validator):
                part.unlink(missing_ok=True)
                raise _TemporaryError("the server sent another piece than what is missing")
        elif response.status == HTTPStatus.OK:
            start, total = 0, _number(response.headers.get("Content-Length"))
        else:
            raise UserError(f"{url}: the server answers {_status(response.status)}, not the file")
        piece = _read(response)
        if not start and is_page(piece, response.headers.get_content_type()):
            raise UserError(f"{url}: the server sends a web page instead of the file")
        _check_room(part, (total or 0) - start)
        if not start:
            # Old bytes must be gone before the validator of the new ones is written.
            part.unlink(missing_ok=True)
        validator_file.write_bytes(new_validator.encode())
        _receive(response, piece, part, start, total, report)
    return start > 0


def _receive(
    response: http.client.HTTPResponse,
    piece: bytes,
    part: Path,
    received: int,
    total: int | None,
    report: Report,
) -> None:
    """Append a response's body to the `received` bytes of `part`; `piece` is its beginning."""
    with open(part, "ab") as stream:
        while piece:
            stream.write(piece)
            received += len(piece)
            report(received, total)
            piece = _read(response)
    if total is not None and received != total:
        raise _TemporaryError(f"the connection ended at byte {received} of {total}")


def _open(url: str, headers: dict[str, str], timeout: float, begun: bool) -> Any:
    """The response, also with status 416. begun: bytes have arrived, so the address is right."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,  # cannot leave HTTP(S): no other scheme has a handler
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and "Range" in headers:
            return error
        with error:
            answer = f"the server answers {_status(error.code)}"
        if error.code in _TEMPORARY:
            raise _TemporaryError(answer) from error
        raise UserError(f"{url}: {answer}, not the file") from error
    except urllib.error.URLError as error:
        if not isinstance(error.reason, OSError) or (
            isinstance(error.reason, _PERMANENT) and not begun
        ):
            raise UserError(f"{url}: cannot be reached: {_reason(error.reason)}") from error
        raise _TemporaryError(f"no connection: {_reason(error.reason)}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TemporaryError(f"no answer: {_reason(error)}") from error


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TemporaryError(f"the connection broke off: {_reason(error)}") from error


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(f"{part.parent} has {free} bytes free, {part.name} needs {needed} more")


def _continues(headers: http.client.HTTPMessage, start: int) -> int | None:
    """The whole file's size where the answer has the bytes from `start` on, else None."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    return int(match[2]) if match and int(match[1]) == start else None


def _validator(headers: http.client.HTTPMessage) -> str:
    """The validator of this version of the file, for the header If-Range; "" for none."""
    tag = headers.get("ETag", "")
    # A weak ETag (W/"…") does not guarantee equal bytes.
    return _printable(tag if tag.startswith('"') else headers.get("Last-Modified", ""))


def _printable(validator: str) -> str:
    """The validator, or "" where it has characters that no header may have."""
    return validator if re.fullmatch(r"[ -~]*", validator) else ""


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d+", text) else None


def _status(code: int) -> str:
    """As in "404 Not Found". The phrase is Python's: a server could send any text as its own."""
    known = [status.phrase for status in HTTPStatus if status == code]
    return " ".join([str(code), *known])


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
