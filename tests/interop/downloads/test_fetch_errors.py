"""Downloads that fail: hosts that are silent or gone, disks that are full, wrong addresses."""

import re
import resource
import socket
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.downloads import fetch as module
from dasac_jax.interop.downloads.fetch import check_url

CONTENT = b"PK" + np.random.default_rng(0).bytes(1_000_000)
HALF = len(CONTENT) // 2


@pytest.mark.parametrize("where", ["file:///etc/hosts", "ftp://127.0.0.1/file", "/old", "/b"])
def test_redirects_elsewhere_or_in_circles_end(load, server, target, where):
    server.redirects |= {"old": where, "b": "/old"}
    with pytest.raises(UserError, match=r"/old: cannot be reached: .*(redirects|adapters)"):
        load(f"{server.url}/old", target)
    assert not list(target.parent.iterdir()) and len(server.requests) < 40


@contextmanager
def answering(*answers):
    """The address of a host that gives so many connections an answer each, and then is gone."""

    def serve():
        for answer in answers:
            connection, _ = host.accept()
            connection.recv(1000)
            connection.sendall(answer)
            connection.close()
        host.close()

    with socket.create_server(("127.0.0.1", 0)) as host:
        url = f"http://127.0.0.1:{host.getsockname()[1]}/file"
        thread = threading.Thread(target=serve)
        thread.start()
        yield url
        thread.join()


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_nobody_there_is_said_at_once(load, target, seen, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address = free_address()
    with pytest.raises(UserError, match=rf"{address}/file: cannot be reached: Connection refused$"):
        load(f"http://{address}/file", target, seen)
    assert not seen.notes


def test_a_name_that_nobody_knows_is_said_at_once(load, target, seen, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UserError, match=r"nobody\.invalid/file: cannot be reached: \w+"):
        load("http://nobody.invalid/file", target, seen)
    assert not seen.notes


def test_a_proxy_is_used_and_named_where_it_is_gone(load, target, monkeypatch, server):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.url)
    server.files["http://elsewhere/file"] = CONTENT  # proxies are asked with the whole address
    load("http://elsewhere/file", target)
    assert target.read_bytes() == CONTENT
    monkeypatch.setenv("http_proxy", f"http://{free_address()}")
    with pytest.raises(UserError, match="cannot be reached: the proxy: Connection refused"):
        load("http://elsewhere/other", target.with_name("other"))


def test_a_host_that_went_away_is_waited_for(load, target, seen, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    head = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 100000\r\n\r\n'
    with (
        answering(head + CONTENT[: 1 << 16]) as url,
        pytest.raises(UserError, match=r"refused; gave up after 5 attempts.*at byte 65536\)"),
    ):
        load(url, target, seen)
    assert len(seen.notes) == 4 and target.with_name("file.pth.part").stat().st_size == 1 << 16


def test_a_silent_host_is_left_after_the_timeout(load, target, seen, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(UserError, match="no answer: timed out; gave up after 5 attempts"):
            load(url, target, seen)
    assert len(seen.notes) == 4


def test_a_host_that_talks_something_else(load, target, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with (
        answering(*[b"220 mail server ready\r\n"] * 5) as url,
        pytest.raises(UserError, match="no answer: 220 mail server ready"),
    ):
        load(url, target)


def test_a_full_disk_is_said_and_what_arrived_stays(load, server, target):
    url, part = server.add("file", CONTENT), target.with_name("file.pth.part")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limit[1]))
    try:
        with pytest.raises(UserError, match=f"cannot write {re.escape(str(part))}: .* large"):
            load(url, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert 0 < part.stat().st_size <= HALF
    load(url, target)
    assert target.read_bytes() == CONTENT and "Range" in server.requests[-1][1]


def test_too_little_room_is_said_before_anything_is_written(load, server, target):
    url = server.add("file", CONTENT)

    class Huge(bytes):
        def __len__(self):
            return 10**18

    server.files["file"] = Huge(CONTENT)
    with pytest.raises(UserError, match=r"bytes free, file.pth.part needs 10{18} more"):
        load(url, target)
    assert not list(target.parent.iterdir())


def test_a_folder_that_cannot_be_is_named(load, server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"cannot write {re.escape(str(tmp_path / 'file'))}"):
        load(server.add("file", CONTENT), tmp_path / "file" / "in" / "it")


@pytest.mark.parametrize(
    "url",
    [
        "", "weights", "ftp://host/file", "file:///etc/passwd", "http://", "http://ho st/",
        "http://host/a b", "http://host/\n", "http://höst/",
        "http://user:pass@host/", "http://host/?token=1", "http://host/#part",
    ],
)  # fmt: skip
def test_only_plain_web_addresses_are_fetched(load, url, target):
    with pytest.raises(UserError):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["http:///file", "http://host:port/", "http://[::1/", "http://" + "x" * 70 + ".de/"]
)
def test_addresses_that_cannot_be_are_one_line(load, url, target, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UserError, match=f"^{re.escape(url)}: cannot be reached: .+$"):
        load(url, target)


def test_web_addresses():
    for url in ("http://127.0.0.1:8000", "https://host.de/a/b/", "HTTP://host/"):
        assert check_url(url) == url
