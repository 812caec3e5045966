"""Downloads over HTTP: what is resumed, what is retried, what is refused at once."""

import re

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.downloads.fetch import is_page

CONTENT = b"PK" + np.random.default_rng(0).bytes(1_000_000)
HALF = 1 << 19


def there(target):
    return sorted(path.name for path in target.parent.iterdir())


def ranges(server):
    return [headers.get("Range") for _, headers in server.requests]


def begin(load, server, target, content=CONTENT):
    """A first command that gets half of a file. Returns the file's address."""
    url = server.add("file", content)
    server.drops = [HALF] + [0] * 4
    with pytest.raises(UserError, match=f"5 attempts.*goes on at byte {HALF}"):
        load(url, target)
    assert there(target) == ["file.pth.part", "file.pth.part.mark"]
    server.requests.clear()
    return url


def test_a_file_arrives_and_is_followed(load, server, target, seen):
    load(server.add("file", CONTENT), target, seen)
    assert target.read_bytes() == CONTENT and there(target) == ["file.pth"]
    assert seen.reports[-1] == (len(CONTENT), len(CONTENT)) and not seen.notes
    counts = [received for received, _ in seen.reports]
    assert counts == sorted(counts) and len(counts) > 3
    headers = server.requests[0][1]
    assert "Range" not in headers and headers["Accept-Encoding"] == "identity"


def test_a_dropped_connection_is_taken_up_where_it_ended(load, server, target, seen, pauses):
    url = server.add("file", CONTENT)
    server.drops = [HALF, 1 << 16]
    load(url, target, seen)
    assert target.read_bytes() == CONTENT and there(target) == ["file.pth"]
    assert ranges(server) == [None, f"bytes={HALF}-", f"bytes={HALF + (1 << 16)}-"]
    assert all("If-Range" in headers for _, headers in server.requests[1:])
    assert len(seen.notes) == 2 and f"ended at byte {HALF} of {len(CONTENT)}" in seen.notes[0]
    assert pauses[1] > pauses[0] > 0


def test_a_later_command_goes_on(load, server, target):
    load(begin(load, server, target), target)
    assert target.read_bytes() == CONTENT and there(target) == ["file.pth"]
    assert ranges(server) == [f"bytes={HALF}-"]


@pytest.mark.parametrize("ranges_are_known", [True, False])
def test_what_cannot_be_gone_on_with_starts_anew(load, server, target, ranges_are_known):
    """A file that changed meanwhile, and a server that always sends everything."""
    url = begin(load, server, target)
    server.ranges = ranges_are_known
    other = server.files["file"] = b"PK" + CONTENT[::-1]
    load(url, target)
    assert target.read_bytes() == other and len(server.requests) == 1


@pytest.mark.parametrize("mark", ["", 'W/"{}"'])
def test_without_a_sure_validator_nothing_is_pieced_together(load, server, target, mark):
    url = server.add("file", CONTENT)
    server.mark = mark
    server.drops = [HALF] * 5
    with pytest.raises(UserError, match="5 attempts \\(the same command starts anew"):
        load(url, target)
    load(url, target)
    assert target.read_bytes() == CONTENT and set(ranges(server)) == {None}


def test_pieces_that_do_not_fit_are_replaced(load, server, target, seen):
    """The server overlooks that the file was another one when its first half came."""
    url = begin(load, server, target)
    server.heeds_marks = False
    other = server.files["file"] = CONTENT[::-1]
    load(url, target, seen, lambda content: None if content == other else "it is another file")
    assert target.read_bytes() == other and ranges(server) == [f"bytes={HALF}-", None]
    assert seen.notes == [
        "it is another file. It came in pieces: once more from the beginning; trying again"
    ]


def test_a_wrong_file_is_set_aside_at_once(load, server, target):
    url = server.add("file", CONTENT)
    with pytest.raises(UserError, match=r"refused: it is wrong; kept as .*file\.pth\.bad"):
        load(url, target, fault=lambda _: "it is wrong")
    assert there(target) == ["file.pth.bad"] and len(server.requests) == 1


def test_a_server_that_never_gets_further_is_given_up(load, server, target, pauses):
    url = server.add("file", CONTENT)
    server.ranges = False
    server.drops = [HALF] * 10
    with pytest.raises(UserError, match=f"ended at byte {HALF} of .*gave up after 5 attempts"):
        load(url, target)
    assert len(server.requests) == 5 and len(pauses) == 4


def test_a_command_that_was_stopped_while_it_checked_has_all_bytes_already(load, server, target):
    def stopped(_):
        raise KeyboardInterrupt

    url = server.add("file", CONTENT)
    with pytest.raises(KeyboardInterrupt):
        load(url, target, fault=stopped)
    assert there(target) == ["file.pth.part", "file.pth.part.mark"]
    load(url, target)
    assert target.read_bytes() == CONTENT and ranges(server) == [None, f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize(("part", "shift"), [(CONTENT + b"more", 0), (CONTENT[:HALF], -10)])
def test_a_piece_from_elsewhere_is_not_appended(load, server, target, part, shift):
    url = begin(load, server, target)
    server.shift = shift
    (target.parent / "file.pth.part").write_bytes(part)
    load(url, target)
    assert target.read_bytes() == CONTENT and len(server.requests) == 2


def test_a_piece_may_begin_with_anything(load, server, target):
    content = CONTENT[:HALF] + b"<" + CONTENT[HALF:]
    load(begin(load, server, target, content), target)
    assert target.read_bytes() == content and ranges(server) == [f"bytes={HALF}-"]


def test_a_length_is_not_needed(load, server, target, seen):
    url = server.add("file", CONTENT)
    server.lengths = False
    load(url, target, seen)
    assert target.read_bytes() == CONTENT and seen.reports[-1] == (len(CONTENT), None)


def test_an_overloaded_server_is_asked_again(load, server, target, seen):
    url = server.add("file", CONTENT)
    server.answers = [503, 429]
    load(url, target, seen)
    assert target.read_bytes() == CONTENT
    assert seen.notes[0] == "the server answers 503 Service Unavailable; trying again"


@pytest.mark.parametrize("code", [403, 404, 410, 204, 416])
def test_other_answers_are_final_and_leave_nothing(load, server, target, code):
    url = server.add("file", CONTENT)
    server.answers = [code]
    with pytest.raises(UserError, match=f"{re.escape(url)}: the server answers {code}"):
        load(url, target)
    assert len(server.requests) == 1 and not there(target)


@pytest.mark.parametrize(
    "content, content_type",
    [
        (b"<!DOCTYPE html>\n<html>not found</html>", "text/html; charset=utf-8"),
        (b"\xef\xbb\xbf \n<html>", "application/octet-stream"),
        (b"Please log in", "text/html"),
    ],
)
def test_a_web_page_is_refused_and_what_is_there_stays(load, server, target, content, content_type):
    url = begin(load, server, target)
    server.files["file"] = content
    server.content_type = content_type
    with pytest.raises(UserError, match="sends a web page instead"):
        load(url, target)
    assert (target.parent / "file.pth.part").read_bytes() == CONTENT[:HALF]
    assert len(server.requests) == 1


def test_weights_that_a_server_calls_a_page_are_none():
    assert not is_page(b"PK\x03\x04", "text/html") and not is_page(b"\x80\x02", "text/html")
    assert not is_page(b"anything", "application/octet-stream")


def test_redirects_keep_the_range(load, server, target):
    url = begin(load, server, target)
    server.redirects["old"] = url
    load(f"{server.url}/old", target)
    assert target.read_bytes() == CONTENT and ranges(server)[-1] == f"bytes={HALF}-"
