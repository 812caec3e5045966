"""Downloads one file by pooch, whose downloader here goes on where an earlier one has ended."""

from __future__ import annotations

import itertools
import logging
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pooch
import requests

from dasac_jax.errors import UserError
from dasac_jax.version import __version__

_ATTEMPTS = 5
_SECONDS = 30.0  # without a byte after which a connection counts as lost
_CHUNK = 1 << 16  # of a connection that breaks off, less than so many bytes are lost
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # status codes of temporary failures
# Before any byte has arrived, these errors mean a wrong address, which no repetition mends.
_PERMANENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)

Report = Callable[[int, int | None], None]


class _AgainError(requests.RequestException):
    """The transfer ended for a reason that may pass: pooch repeats after a RequestException."""


def check_url(url: str) -> str:
    """The URL itself. Raises UserError unless it is plain http or https."""
    if not re.fullmatch(r"https?://[!-~]+", url, re.IGNORECASE):
        raise UserError(f"{url!r}: only URLs that begin with http:// or https:// are fetched")
    if re.search("[?#@]", url):
        raise UserError(f"{url!r}: give it without user, password, '?' and '#'")
    return url


def is_page(head: bytes, content_type: str = "") -> bool:
    """Whether a file beginning with `head` is a web page, which some servers send for errors."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return True
    # Files of weights are known by their first bytes, also where the server gives a wrong type.
    return content_type.startswith("text/html") and not head.startswith((b"PK", b"\x80"))


def fetch(
    url: str,
    target: Path,
    *,
    fault: Callable[[Path], str | None],
    report: Report,
    log: Callable[[str], None],
) -> None:
    """Download `url` to `target`, which gets its name only when it is whole and without a fault.

    What has arrived is kept in target.part, and beside it in target.part.mark the validator (ETag
    or date) that the server gave for this version. Another attempt, also one by a later command,
    asks for the rest of the same version; of another version the server then sends all.

    fault: tells what is wrong with a whole file, None if nothing is. Such a file is kept as
    target.bad. report: called with the bytes received and the total (None if unknown). log: called
    with a line of text before each new attempt.

    Raises UserError where the server refuses, sends a web page or another file, or cannot be
    reached, and where the file cannot be written.
    """
    check_url(url)
    pooch.get_logger().setLevel(logging.WARNING)  # `log` says the same, and why
    part, mark = _beside(target, ".part"), _beside(target, ".part.mark")
    attempts = itertools.count(1)

    def download(_: str, output: str, __: pooch.Pooch) -> None:
        try:
            resumed = _transfer(url, part, mark, report)
            problem = fault(part)
            mark.unlink()  # only now, as checking takes seconds in which the command may be stopped
            if problem is not None:
                bad = part.replace(_beside(target, ".bad"))
                if not resumed:
                    raise UserError(f"refused: {problem}; kept as {bad}")
                raise _AgainError(f"{problem}. It came in pieces: once more from the beginning")
        except _AgainError as error:
            if next(attempts) < _ATTEMPTS:
                log(f"{error}; trying again")
            raise
        part.replace(output)  # the file that pooch renames

    files = pooch.create(
        target.parent, "", registry={target.name: None}, urls={target.name: url},
        retry_if_failed=_ATTEMPTS - 1,
    )  # fmt: skip
    try:
        files.fetch(target.name, downloader=download)
    except _AgainError as error:
        start, _ = _begun(part, mark)
        again = f"goes on at byte {start}" if start else "starts anew"
        raise UserError(
            f"{url}: {error}; gave up after {_ATTEMPTS} attempts (the same command {again})"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {error.filename or part}: {_reason(error)}") from error


def _transfer(url: str, part: Path, mark: Path, report: Report) -> bool:
    """Make one request, and append to `part` what it brings; whether that had been begun before.

    Raises _AgainError where another attempt may bring more, and otherwise as `fetch` does.
    """
    start, validator = _begun(part, mark)
    resume = {"Range": f"bytes={start}-", "If-Range": validator} if start else {}
    with _answer(url, resume) as response:
        headers = response.headers
        piece = headers.get("Content-Range", "") if resume else ""
        if response.status_code == HTTPStatus.OK:
            start = 0
        elif not piece.startswith((f"bytes {start}-", f"bytes */{start}")):
            part.unlink()
            raise _AgainError("the server sent another piece than what is missing")
        size = piece.rpartition("/")[2] or headers.get("Content-Length", "")
        total = int(size) if size.isdecimal() else None
        pieces = _body(response, start, total)
        first = next(pieces, b"")
        if not start and is_page(first, headers.get("Content-Type", "")):
            raise UserError(f"{url}: the server sends a web page instead of the file")
        free, needed = shutil.disk_usage(part.parent).free, (total or 0) - start
        if needed > free:
            raise UserError(f"{part.parent} has {free} bytes free, {part.name} needs {needed} more")
        if not start:
            # Old bytes must be gone before the validator of the new ones is written.
            part.unlink(missing_ok=True)
            # A weak ETag (W/"…") does not guarantee equal bytes.
            tag = headers.get("ETag", "")
            mark.write_text(tag if tag[:1] == '"' else headers.get("Last-Modified", ""), "latin-1")
        with open(part, "ab") as stream:
            for piece in itertools.chain([first], pieces):
                stream.write(piece)
                report(stream.tell(), total)
    return start > 0


def _answer(url: str, resume: dict[str, str]) -> requests.Response:
    """The server's answer, which has the file or, if the headers `resume` ask for it, its rest."""
    headers = {"User-Agent": f"dasac-jax/{__version__}", "Accept-Encoding": "identity"} | resume
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=_SECONDS)
    except (requests.ConnectionError, requests.Timeout) as error:
        cause: Any = error  # what requests and urllib3 have wrapped, as tracebacks show it first
        while below := cause.__cause__ or (not cause.__suppress_context__ and cause.__context__):
            cause = below
        proxy = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
        if isinstance(cause, _PERMANENT) and not resume:
            raise UserError(f"{url}: cannot be reached: {proxy}{_reason(cause)}") from error
        raise _AgainError(f"no answer: {proxy}{_reason(cause)}") from error
    except (requests.RequestException, ValueError) as error:  # no address, or redirected to none
        raise UserError(f"{url}: cannot be reached: {_reason(error)}") from error
    code = response.status_code
    if code == HTTPStatus.OK or (resume and code in (206, 416)):
        return response
    response.close()
    # The phrase is Python's: a server could send any text as its own.
    known = [status.phrase for status in HTTPStatus if status == code]
    answer = " ".join(["the server answers", str(code), *known])
    if code in _TEMPORARY:
        raise _AgainError(answer)
    raise UserError(f"{url}: {answer}, not the file")


def _body(response: requests.Response, received: int, total: int | None) -> Iterator[bytes]:
    """An answer's body in pieces. Raises _AgainError where it ends early."""
    early = None
    try:
        for piece in response.iter_content(_CHUNK):
            received += len(piece)
            yield piece
    except requests.RequestException as error:
        early = error
    if early or total not in (None, received):
        whole = "" if total is None else f" of {total}"
        raise _AgainError(f"the connection ended at byte {received}{whole}") from early


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _begun(part: Path, mark: Path) -> tuple[int, str]:
    """How many bytes are there of a version of the file, and its validator; or else (0, "")."""
    validator = mark.read_text("latin-1") if mark.exists() else ""
    return (part.stat().st_size, validator) if validator and part.exists() else (0, "")
