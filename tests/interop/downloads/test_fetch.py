"""Downloads over HTTP: what is resumed, what is retried, what is refused at once."""

import re
from pathlib import Path

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.downloads.fetch import is_page

CONTENT = b"PK" + np.random.default_rng(0).bytes(1_000_000)
HALF = len(CONTENT) // 2


def leftovers(part):
    return sorted(path.name for path in part.parent.iterdir() if path != part)


def test_a_file_arrives_and_is_followed(load, server, part, seen):
    assert load(server.add("file", CONTENT), part, seen) is False
    assert part.read_bytes() == CONTENT and not leftovers(part)
    assert seen.reports[-1] == (len(CONTENT), len(CONTENT)) and not seen.notes
    counts = [there for there, _ in seen.reports]
    assert counts == sorted(counts) and len(counts) > 3
    headers = server.requests[0][1]
    assert "Range" not in headers and headers["Accept-Encoding"] == "identity"


def test_a_dropped_connection_is_taken_up_where_it_ended(load, server, part, seen):
    url = server.add("file", CONTENT)
    server.drops = [HALF, 1000]
    assert load(url, part, seen) is True
    assert part.read_bytes() == CONTENT and not leftovers(part)
    assert [headers.get("Range") for _, headers in server.requests] == [
        None, f"bytes={HALF}-", f"bytes={HALF + 1000}-",
    ]  # fmt: skip
    assert all("If-Range" in headers for _, headers in server.requests[1:])
    assert len(seen.notes) == 2 and f"ended at byte {HALF} of {len(CONTENT)}" in seen.notes[0]


def test_a_later_run_goes_on(load, server, part):
    url = server.add("file", CONTENT)
    server.drops = [HALF] + [0] * 3
    with pytest.raises(UserError, match=f"3 attempts.*goes on at byte {HALF}"):
        load(url, part)
    assert part.stat().st_size == HALF
    assert leftovers(part) == ["file.pth.part.mark"]
    assert load(url, part) is True
    assert part.read_bytes() == CONTENT and not leftovers(part)
    assert server.requests[-1][1]["Range"] == f"bytes={HALF}-"


def test_a_file_that_changed_meanwhile_starts_anew(load, server, part):
    url = server.add("file", CONTENT)
    server.drops = [HALF] + [0] * 3
    with pytest.raises(UserError):
        load(url, part)
    other = CONTENT[::-1]
    server.add("file", b"PK" + other)
    assert load(url, part) is False
    assert part.read_bytes() == b"PK" + other


def test_a_changed_file_is_noticed_even_if_the_server_overlooks_it(load, server, part, seen):
    url = server.add("file", CONTENT)
    server.drops = [HALF] + [0] * 3
    with pytest.raises(UserError):
        load(url, part)
    server.add("file", CONTENT[::-1])
    server.heeds_marks = False
    assert load(url, part, seen) is False
    assert part.read_bytes() == CONTENT[::-1] and "another piece" in seen.notes[0]


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("mark", ["", 'W/"{}"'])
def test_without_a_sure_mark_only_checked_files_are_resumed(load, server, part, checked, mark):
    url = server.add("file", CONTENT)
    server.mark = mark
    server.drops = [HALF]
    assert load(url, part, resume_without_validator=checked) is checked
    assert part.read_bytes() == CONTENT
    assert ("Range" in server.requests[1][1]) is checked
    assert "If-Range" not in server.requests[1][1]


def test_a_server_without_ranges_starts_anew(load, server, part):
    url = server.add("file", CONTENT)
    server.ranges = False
    part.write_bytes(b"other bytes")
    server.drops = [HALF]
    assert load(url, part) is False
    assert part.read_bytes() == CONTENT


def test_a_server_that_never_gets_further_is_given_up(load, server, part):
    url = server.add("file", CONTENT)
    server.ranges = False
    server.drops = [HALF] * 10
    with pytest.raises(UserError, match="3 attempts without progress"):
        load(url, part)
    assert len(server.requests) == 4  # the first one did get further


def test_progress_earns_new_attempts(load, server, part):
    url = server.add("file", CONTENT)
    server.drops = [HALF // 10] * 15
    load(url, part)
    assert part.read_bytes() == CONTENT and len(server.requests) == 16


def test_all_bytes_there_already(load, server, part):
    url = server.add("file", CONTENT)
    part.write_bytes(CONTENT)
    assert load(url, part) is True
    assert part.read_bytes() == CONTENT


def test_more_bytes_than_the_server_has_are_dropped(load, server, part):
    url = server.add("file", CONTENT)
    part.write_bytes(CONTENT + b"more")
    assert load(url, part) is False
    assert part.read_bytes() == CONTENT


def test_a_piece_from_elsewhere_is_not_appended(load, server, part):
    url = server.add("file", CONTENT)
    server.shift = -10
    part.write_bytes(CONTENT[:HALF])
    assert load(url, part) is False
    assert part.read_bytes() == CONTENT and len(server.requests) == 2


def test_a_piece_may_begin_with_anything(load, server, part):
    content = CONTENT[:HALF] + b"<" + CONTENT[HALF:]
    part.write_bytes(content[:HALF])
    assert load(server.add("file", content), part) is True
    assert part.read_bytes() == content


def test_a_length_is_not_needed(load, server, part, seen):
    url = server.add("file", CONTENT)
    server.lengths = False
    load(url, part, seen)
    assert part.read_bytes() == CONTENT and seen.reports[-1] == (len(CONTENT), None)


def test_an_overloaded_server_is_asked_again(load, server, part, seen):
    url = server.add("file", CONTENT)
    server.answers = [503, 429]
    load(url, part, seen)
    assert part.read_bytes() == CONTENT
    assert "503 Service Unavailable; trying again in 0.001 s" in seen.notes[0]
    assert seen.notes[1].endswith("in 0.002 s")  # ever longer


@pytest.mark.parametrize("code", [403, 404, 410, 204, 416])
def test_other_answers_are_final_and_leave_everything_as_it_is(load, server, part, code):
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
def test_a_web_page_is_refused_and_what_is_there_stays(load, server, part, content, content_type):
    url = server.add("file", content)
    server.content_type, server.ranges = content_type, False
    part.write_bytes(b"some")
    with pytest.raises(UserError, match="sends a web page instead"):
        load(url, part)
    assert part.read_bytes() == b"some" and len(server.requests) == 1


def test_weights_that_a_server_calls_a_page_are_none():
    assert not is_page(b"PK\x03\x04", "text/html") and not is_page(b"\x80\x02", "text/html")
    assert not is_page(b"anything", "application/octet-stream")


def test_redirects_keep_the_range(load, server, part):
    server.redirects["old"] = server.add("file", CONTENT)
    part.write_bytes(CONTENT[:HALF])
    assert load(f"{server.url}/old", part) is True
    assert part.read_bytes() == CONTENT and server.requests[-1][1]["Range"] == f"bytes={HALF}-"


def test_a_damaged_mark_does_no_harm(load, server, part):
    url = server.add("file", CONTENT)
    part.write_bytes(CONTENT[:HALF])
    Path(f"{part}.mark").write_bytes(b"\xff\r\nHost: other")
    load(url, part)
    assert part.read_bytes() == CONTENT and not leftovers(part)
