"""Fetching over HTTP: what is resumed, what is retried, what is refused at once."""

import re
import resource
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.downloads.fetch import RetryPolicy, check_url, fetch, is_page

CONTENT = b"PK" + np.random.default_rng(0).bytes(1_000_000)
HALF = len(CONTENT) // 2
SOON = RetryPolicy(timeout=5, attempts=3, pause=0.001)


@dataclass
class Seen:
    """What a transfer reports."""

    reports: list[tuple[int, int | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, there, total):
        self.reports.append((there, total))


def load(url, part, seen=None, **options):
    seen = seen or Seen()
    options = {"policy": SOON, **options}
    return fetch(url, part, report=seen.report, log=seen.notes.append, **options)


@pytest.fixture
def part(tmp_path):
    return tmp_path / "file.pth.part"


def leftovers(part):
    return sorted(path.name for path in part.parent.iterdir() if path != part)


def test_a_file_arrives_and_is_followed(server, part):
    seen = Seen()
    assert load(server.add("file", CONTENT), part, seen) is False
    assert part.read_bytes() == CONTENT and not leftovers(part)
    assert seen.reports[-1] == (len(CONTENT), len(CONTENT)) and not seen.notes
    counts = [there for there, _ in seen.reports]
    assert counts == sorted(counts) and len(counts) > 3
    headers = server.requests[0][1]
    assert "Range" not in headers and headers["Accept-Encoding"] == "identity"


def test_a_dropped_connection_is_taken_up_where_it_ended(server, part):
    url = server.add("file", CONTENT)
    server.drops = [HALF, 1000]
    seen = Seen()
    assert load(url, part, seen) is True
    assert part.read_bytes() == CONTENT and not leftovers(part)
    assert [headers.get("Range") for _, headers in server.requests] == [
        None, f"bytes={HALF}-", f"bytes={HALF + 1000}-",
    ]  # fmt: skip
    assert all("If-Range" in headers for _, headers in server.requests[1:])
    assert len(seen.notes) == 2 and f"ended at byte {HALF} of {len(CONTENT)}" in seen.notes[0]


def test_a_later_run_goes_on(server, part):
    url = server.add("file", CONTENT)
    server.drops = [HALF] + [0] * 3
    with pytest.raises(UserError, match=f"3 attempts.*goes on at byte {HALF}"):
        load(url, part)
    assert part.stat().st_size == HALF
    assert leftovers(part) == ["file.pth.part.mark"]
    assert load(url, part) is True
    assert part.read_bytes() == CONTENT and not leftovers(part)
    assert server.requests[-1][1]["Range"] == f"bytes={HALF}-"


def test_a_file_that_changed_meanwhile_starts_anew(server, part):
    url = server.add("file", CONTENT)
    server.drops = [HALF] + [0] * 3
    with pytest.raises(UserError):
        load(url, part)
    other = CONTENT[::-1]
    server.add("file", b"PK" + other)
    assert load(url, part) is False
    assert part.read_bytes() == b"PK" + other


def test_a_changed_file_is_noticed_even_if_the_server_overlooks_it(server, part):
    url = server.add("file", CONTENT)
    server.drops = [HALF] + [0] * 3
    with pytest.raises(UserError):
        load(url, part)
    server.add("file", CONTENT[::-1])
    server.heeds_marks = False
    seen = Seen()
    assert load(url, part, seen) is False
    assert part.read_bytes() == CONTENT[::-1] and "another piece" in seen.notes[0]


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("mark", ["", 'W/"{}"'])
def test_without_a_sure_mark_only_checked_files_are_resumed(server, part, checked, mark):
    url = server.add("file", CONTENT)
    server.mark = mark
    server.drops = [HALF]
    assert load(url, part, resume_without_validator=checked) is checked
    assert part.read_bytes() == CONTENT
    assert ("Range" in server.requests[1][1]) is checked
    assert "If-Range" not in server.requests[1][1]


def test_a_server_without_ranges_starts_anew(server, part):
    url = server.add("file", CONTENT)
    server.ranges = False
    part.write_bytes(b"other bytes")
    server.drops = [HALF]
    assert load(url, part) is False
    assert part.read_bytes() == CONTENT


def test_a_server_that_never_gets_further_is_given_up(server, part):
    url = server.add("file", CONTENT)
    server.ranges = False
    server.drops = [HALF] * 10
    with pytest.raises(UserError, match="3 attempts without progress"):
        load(url, part)
    assert len(server.requests) == 4  # the first one did get further


def test_progress_earns_new_attempts(server, part):
    url = server.add("file", CONTENT)
    server.drops = [HALF // 10] * 15
    load(url, part)
    assert part.read_bytes() == CONTENT and len(server.requests) == 16


def test_all_bytes_there_already(server, part):
    url = server.add("file", CONTENT)
    part.write_bytes(CONTENT)
    assert load(url, part) is True
    assert part.read_bytes() == CONTENT


def test_more_bytes_than_the_server_has_are_dropped(server, part):
    url = server.add("file", CONTENT)
    part.write_bytes(CONTENT + b"more")
    assert load(url, part) is False
    assert part.read_bytes() == CONTENT


def test_a_piece_from_elsewhere_is_not_appended(server, part):
    url = server.add("file", CONTENT)
    server.shift = -10
    part.write_bytes(CONTENT[:HALF])
    assert load(url, part) is False
    assert part.read_bytes() == CONTENT and len(server.requests) == 2


def test_a_piece_may_begin_with_anything(server, part):
    content = CONTENT[:HALF] + b"<" + CONTENT[HALF:]
    part.write_bytes(content[:HALF])
    assert load(server.add("file", content), part) is True
    assert part.read_bytes() == content


def test_a_length_is_not_needed(server, part):
    url = server.add("file", CONTENT)
    server.lengths = False
    seen = Seen()
    load(url, part, seen)
    assert part.read_bytes() == CONTENT and seen.reports[-1] == (len(CONTENT), None)


def test_an_overloaded_server_is_asked_again(server, part):
    url = server.add("file", CONTENT)
    server.answers = [503, 429]
    seen = Seen()
    load(url, part, seen)
    assert part.read_bytes() == CONTENT
    assert "503 Service Unavailable; trying again in 0.001 s" in seen.notes[0]
    assert seen.notes[1].endswith("in 0.002 s")  # ever longer


@pytest.mark.parametrize("code", [403, 404, 410, 204, 416])
def test_other_answers_are_final_and_leave_everything_as_it_is(server, part, code):
    url = server.add("file", CONTENT)
    server.answers = [code]
    with pytest.raises(UserError, match=f"{re.escape(url)}: the server answers {code}"):
        load(url, part)
    assert len(server.requests) == 1 and not part.exists() and not leftovers(part)


@pytest.mark.parametrize(
    "content, content_type",
    [
        (b"<!DOCTYPE html>\n<html>not found</html>", "text/html; charset=utf-8"),
        (b"\xef\xbb\xbf \n<html>", "application/octet-stream"),
        (b"Please log in", "text/html"),
    ],
)
def test_a_web_page_is_refused_and_what_is_there_stays(server, part, content, content_type):
    url = server.add("file", content)
    server.content_type, server.ranges = content_type, False
    part.write_bytes(b"some")
    with pytest.raises(UserError, match="sends a web page instead"):
        load(url, part)
    assert part.read_bytes() == b"some" and len(server.requests) == 1


def test_weights_that_a_server_calls_a_page_are_none():
    assert not is_page(b"PK\x03\x04", "text/html") and not is_page(b"\x80\x02", "text/html")
    assert not is_page(b"anything", "application/octet-stream")


def test_redirects_keep_the_range(server, part):
    server.redirects["old"] = server.add("file", CONTENT)
    part.write_bytes(CONTENT[:HALF])
    assert load(f"{server.url}/old", part) is True
    assert part.read_bytes() == CONTENT and server.requests[-1][1]["Range"] == f"bytes={HALF}-"


@pytest.mark.parametrize("where", ["file:///etc/hosts", "ftp://127.0.0.1/file", "/old", "/b"])
def test_redirects_elsewhere_or_in_circles_end(server, part, where):
    server.redirects |= {"old": where, "b": "/old"}
    with pytest.raises(UserError, match=r"302 Found|ftp"):
        load(f"{server.url}/old", part)
    assert not part.exists() and len(server.requests) < 30


def test_nobody_there_is_said_at_once(part):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    seen = Seen()
    with pytest.raises(UserError, match=rf"127.0.0.1:{port}/file: cannot be reached: .*refused"):
        load(f"http://127.0.0.1:{port}/file", part, seen)
    assert not seen.notes


def test_a_host_that_went_away_is_waited_for(part):
    def serve_once():
        connection, _ = host.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + CONTENT[:10])
        host.close()
        connection.close()

    host = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{host.getsockname()[1]}/file"
    thread = threading.Thread(target=serve_once)
    thread.start()
    seen = Seen()
    with pytest.raises(UserError, match=r"refused; gave up after 3 attempts.*at byte 10\)"):
        load(url, part, seen)
    thread.join()
    assert len(seen.notes) == 3 and part.read_bytes() == CONTENT[:10]


def test_a_silent_host_is_left_after_the_timeout(part):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        seen = Seen()
        with pytest.raises(UserError, match="no answer: timed out; gave up after 2 attempts"):
            load(url, part, seen, policy=RetryPolicy(timeout=0.1, attempts=2, pause=0.001))
    assert len(seen.notes) == 1


def test_a_host_that_talks_something_else(part):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def talk():
            for _ in range(3):
                connection, _ = other.accept()
                connection.recv(1000)
                connection.sendall(b"220 mail server ready\r\n")
                connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(UserError, match="no answer: 220 mail server ready"):
            load(f"http://127.0.0.1:{other.getsockname()[1]}/file", part)
        thread.join()


def test_a_full_disk_is_said_and_what_arrived_stays(server, part):
    url = server.add("file", CONTENT)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limit[1]))
    try:
        with pytest.raises(UserError, match=f"cannot write {re.escape(str(part))}: .* large"):
            load(url, part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert 0 < part.stat().st_size <= HALF
    assert load(url, part) is True
    assert part.read_bytes() == CONTENT


def test_too_little_room_is_said_before_anything_is_written(server, part):
    url = server.add("file", CONTENT)
    content = server.files["file"]

    class Huge(bytes):
        def __len__(self):
            return 10**18

    server.files["file"] = Huge(content)
    with pytest.raises(UserError, match=r"bytes free, file.pth.part needs 10{18} more"):
        load(url, part)
    assert not part.exists()


def test_a_folder_that_is_not_there_is_named(server, tmp_path):
    part = tmp_path / "missing" / "file.part"
    with pytest.raises(UserError, match=f"cannot write {re.escape(str(part.parent))}"):
        load(server.add("file", CONTENT), part)


@pytest.mark.parametrize(
    "url",
    [
        "", "weights", "ftp://host/file", "file:///etc/passwd", "http://", "http:///file",
        "http://host:port/", "http://ho st/", "http://host/a b", "http://host/\n", "http://höst/",
        "http://user:pass@host/", "http://host/?token=1", "http://host/#part", "http://[::1/",
        "http://" + "x" * 70 + ".de/",
    ],
)  # fmt: skip
def test_only_plain_web_addresses_are_fetched(url, part):
    with pytest.raises(UserError):
        check_url(url)
    with pytest.raises(UserError):
        load(url, part)


def test_web_addresses():
    for url in ("http://127.0.0.1:8000", "https://host.de/a/b/", "HTTP://host/"):
        assert check_url(url) == url


def test_a_damaged_mark_does_no_harm(server, part):
    url = server.add("file", CONTENT)
    part.write_bytes(CONTENT[:HALF])
    Path(f"{part}.mark").write_bytes(b"\xff\r\nHost: other")
    load(url, part)
    assert part.read_bytes() == CONTENT and not leftovers(part)
