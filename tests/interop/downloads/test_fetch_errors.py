"""Downloads that fail: hosts that are silent or gone, disks that are full, wrong addresses."""

import re
import resource
import socket
import threading

import numpy as np
import pytest

from dasac_jax.errors import UserError
from dasac_jax.interop.downloads.fetch import RetryPolicy, check_url

CONTENT = b"PK" + np.random.default_rng(0).bytes(1_000_000)
HALF = len(CONTENT) // 2


@pytest.mark.parametrize("where", ["file:///etc/hosts", "ftp://127.0.0.1/file", "/old", "/b"])
def test_redirects_elsewhere_or_in_circles_end(load, server, part, where):
    server.redirects |= {"old": where, "b": "/old"}
    with pytest.raises(UserError, match=r"302 Found|ftp"):
        load(f"{server.url}/old", part)
    assert not part.exists() and len(server.requests) < 30


def test_nobody_there_is_said_at_once(load, part, seen):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=rf"127.0.0.1:{port}/file: cannot be reached: .*refused"):
        load(f"http://127.0.0.1:{port}/file", part, seen)
    assert not seen.notes


def test_a_host_that_went_away_is_waited_for(load, part, seen):
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
    with pytest.raises(UserError, match=r"refused; gave up after 3 attempts.*at byte 10\)"):
        load(url, part, seen)
    thread.join()
    assert len(seen.notes) == 3 and part.read_bytes() == CONTENT[:10]


def test_a_silent_host_is_left_after_the_timeout(load, part, seen):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(UserError, match="no answer: timed out; gave up after 2 attempts"):
            load(url, part, seen, policy=RetryPolicy(timeout=0.1, attempts=2, pause=0.001))
    assert len(seen.notes) == 1


def test_a_host_that_talks_something_else(load, part):
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


def test_a_full_disk_is_said_and_what_arrived_stays(load, server, part):
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


def test_too_little_room_is_said_before_anything_is_written(load, server, part):
    url = server.add("file", CONTENT)
    content = server.files["file"]

    class Huge(bytes):
        def __len__(self):
            return 10**18

    server.files["file"] = Huge(content)
    with pytest.raises(UserError, match=r"bytes free, file.pth.part needs 10{18} more"):
        load(url, part)
    assert not part.exists()


def test_a_folder_that_is_not_there_is_named(load, server, tmp_path):
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
def test_only_plain_web_addresses_are_fetched(load, url, part):
    with pytest.raises(UserError):
        check_url(url)
    with pytest.raises(UserError):
        load(url, part)


def test_web_addresses():
    for url in ("http://127.0.0.1:8000", "https://host.de/a/b/", "HTTP://host/"):
        assert check_url(url) == url
