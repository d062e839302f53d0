"""Mirrors first, then a download that is resumed, repeated and verified, from a server in this process."""

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from refusals import refused
from spatialmae.data.download import MIRRORS_VARIABLE, Archive, Published, fetch_archive

CONTENT = np.random.default_rng(0).bytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "archive.tar.gz"


class Server(ThreadingHTTPServer):
    """Serves CONTENT; ``broken`` responses stop half-way, ``failing`` ones are errors of that status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.broken, self.failing = CONTENT, True, 0, []
        self.requested: list[str | None] = []
        self.pause = 0.0  # seconds before each body
        self.sent = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, content, wanted = self.server, self.server.content, self.headers["Range"]
        server.requested.append(wanted)
        if server.failing:
            self.send_error(server.failing.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if server.broken:
            server.broken -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        time.sleep(server.pause)
        self.wfile.write(body)
        server.sent += len(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.delenv(MIRRORS_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server: Server, cache: Path, sha256: str = SHA256, attempts: int = 3) -> Archive:
    published = Published(NAME, f"http://127.0.0.1:{server.server_address[1]}/{NAME}", sha256)
    return fetch_archive(published, cache, attempts=attempts, backoff_s=0.01)


def test_downloads_once(server, tmp_path):
    cache = tmp_path / "new" / "cache"
    archive = fetch(server, cache)
    assert archive == Archive(cache / NAME, SHA256, True) and archive.path.read_bytes() == CONTENT
    assert fetch(server, cache) == archive and len(server.requested) == 1
    assert {path.name for path in cache.iterdir()} == {NAME, f".{NAME}.lock"}


def test_of_two_at_once_one_downloads_and_the_other_waits(server, tmp_path):
    server.pause = 0.2
    with ThreadPoolExecutor(2) as both:
        archives = list(both.map(lambda _: fetch(server, tmp_path), range(2)))
    assert archives == [Archive(tmp_path / NAME, SHA256, True)] * 2 and archives[0].path.read_bytes() == CONTENT
    assert len(server.requested) == 1


def test_a_broken_connection_is_resumed_where_it_stopped(server, tmp_path):
    server.broken = 2
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT
    assert server.requested[0] is None and len(server.requested) == 3
    first, second = (int(wanted.removeprefix("bytes=").removesuffix("-")) for wanted in server.requested[1:])
    assert 0 < first < second
    assert server.sent < 1.2 * len(CONTENT)


def test_a_later_run_resumes_what_an_earlier_one_left(server, tmp_path):
    server.broken = 1
    with refused(NAME, MIRRORS_VARIABLE):
        fetch(server, tmp_path, attempts=1)
    held = (tmp_path / f"{NAME}.part").stat().st_size
    assert not (tmp_path / NAME).exists() and held
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT
    assert server.requested[1] == f"bytes={held}-"


def test_a_server_that_ignores_ranges_sends_all_again(server, tmp_path):
    server.ranges, server.broken = False, 1
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT
    assert server.requested[1] is not None


def test_a_whole_part_is_only_verified(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT
    assert server.sent == 0


def test_a_part_longer_than_the_file_is_begun_again(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_errors_are_repeated(server, tmp_path, status):
    server.failing = [status]
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT


def test_final_errors_are_not_repeated(server, tmp_path):
    server.failing = [404, 404]
    with refused(NAME, MIRRORS_VARIABLE, about="404"):
        fetch(server, tmp_path)
    assert len(server.requested) == 1


def test_a_wrong_hash_is_refused_and_not_kept(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    with refused(NAME, MIRRORS_VARIABLE, about="SHA-256"):
        fetch(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".{NAME}.lock"]


def test_a_damaged_copy_in_the_cache_is_replaced(server, tmp_path):
    (tmp_path / NAME).write_bytes(b"damaged")
    assert fetch(server, tmp_path).path.read_bytes() == CONTENT


def test_without_network_or_mirror_one_line_says_what_to_do(server, tmp_path):
    server.shutdown()
    server.server_close()
    with refused(NAME, f"connect, or set {MIRRORS_VARIABLE}"):
        fetch(server, tmp_path, attempts=2)


def test_mirrors_are_searched_first_and_in_order(server, tmp_path, monkeypatch):
    empty, other, official = (tmp_path / name for name in ("empty", "other", "official"))
    for folder, content in ((empty, None), (other, b"another order"), (official, CONTENT)):
        folder.mkdir()
        if content:
            (folder / NAME).write_bytes(content)
    monkeypatch.setenv(MIRRORS_VARIABLE, f"{empty}:{other}:{official}")
    found = fetch(server, tmp_path / "cache")
    assert found == Archive(other / NAME, hashlib.sha256(b"another order").hexdigest(), False)
    assert found.provenance() == {"archive": NAME, "sha256": found.sha256, "official": False}
    monkeypatch.setenv(MIRRORS_VARIABLE, f"{official}:{other}")
    assert fetch(server, tmp_path / "cache") == Archive(official / NAME, SHA256, True)
    assert server.requested == [] and not (tmp_path / "cache").exists()


def test_a_mirror_that_is_no_folder_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setenv(MIRRORS_VARIABLE, str(tmp_path / "absent"))
    with refused("absent", "name existing folders"):
        fetch(server, tmp_path)
