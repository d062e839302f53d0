"""Published archives: taken from a local mirror, or downloaded, resumed and verified."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm

from spatialmae.artifacts import locked
from spatialmae.errors import UserError

MIRRORS_VARIABLE = "SPATIALMAE_MIRRORS"
TIMEOUT_S = 30.0
# What a broken connection costs at most: a chunk that did not arrive whole is asked for again.
CHUNK_BYTES = 1 << 16
# A request that the server understood and refused is not repeated; these two may pass.
PASSING_CLIENT_ERRORS = (408, 429)


@dataclass(frozen=True)
class Published:
    """An archive as its publisher states it."""

    name: str
    url: str
    sha256: str


@dataclass(frozen=True)
class Archive:
    """An archive on disk.

    Attributes:
        path: the file.
        sha256: its hash.
        official: whether that is the hash that the publisher states.
    """

    path: Path
    sha256: str
    official: bool

    def provenance(self) -> dict[str, object]:
        """What tells this copy from another: JSON-able, and the same wherever the file lies."""
        return {"archive": self.path.name, "sha256": self.sha256, "official": self.official}


def fetch_archive(published: Published, cache: Path | str, *, attempts: int = 4, backoff_s: float = 1.0) -> Archive:
    """Find an archive in the mirrors or in ``cache``, or download it to ``cache``.

    The folders named by the environment variable ``SPATIALMAE_MIRRORS``, separated by colons (the platform's
    path separator), are searched first, by file name. A mirror's copy whose hash differs from the official
    one is accepted and says so (``official`` false): it may hold the same data in another order. A download
    must have the official hash.

    Args:
        published: the archive.
        cache: folder for downloads, made if needed.
        attempts: tries, each resuming where the last one stopped.
        backoff_s: seconds before the second try, doubled before each further one.

    Raises:
        UserError: a mirror is no folder, or the archive can neither be found nor downloaded intact.
    """
    archive = find_archive(published, cache)
    if archive is not None:
        return archive
    path = Path(cache) / published.name
    with locked(path.with_name(f".{path.name}.lock")):
        archive = find_archive(published, cache)  # another process may have been downloading it
        if archive is None:
            _download(published, path, attempts, backoff_s)
    return archive or Archive(path, published.sha256, True)


def find_archive(published: Published, cache: Path | str) -> Archive | None:
    """Find an archive in the mirrors or in ``cache``, as :func:`fetch_archive` does; None if it would be downloaded.

    Raises:
        UserError: a mirror is no folder, or the archive cannot be read.
    """
    for folder in _mirrors():
        candidate = folder / published.name
        if candidate.is_file():
            sha256 = file_sha256(candidate)
            return Archive(candidate, sha256, sha256 == published.sha256)
    path = Path(cache) / published.name
    whole = path.is_file() and file_sha256(path) == published.sha256
    return Archive(path, published.sha256, True) if whole else None


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})", "make it readable") from None


def _mirrors() -> Iterator[Path]:
    """The folders of ``SPATIALMAE_MIRRORS`` in order."""
    for name in filter(None, os.environ.get(MIRRORS_VARIABLE, "").split(os.pathsep)):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise UserError(f"{MIRRORS_VARIABLE}={name}", "no such folder", "name existing folders, or unset it")
        yield folder


def _download(published: Published, path: Path, attempts: int, backoff_s: float) -> None:
    """Download to ``path`` by way of ``<name>.part``, which a later try or run resumes."""
    part = path.with_name(path.name + ".part")
    for attempt in range(attempts):
        if attempt:
            time.sleep(backoff_s * 2 ** (attempt - 1))
        try:
            _fetch_rest(published.url, part)
            break
        except requests.RequestException as error:
            if _is_final(error) or attempt == attempts - 1:
                raise _unavailable(published, error) from None
    if file_sha256(part) != published.sha256:
        part.unlink()
        problem = f"what {published.url} sent has not the official SHA-256 and was deleted"
        raise UserError(published.name, problem, f"try again, or name a folder that holds it in {MIRRORS_VARIABLE}")
    part.replace(path)


def _fetch_rest(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks, or write it anew if the server does not resume."""
    held = part.stat().st_size if part.is_file() else 0
    # Bytes as stored: a range of a compressed transfer would not fit.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable and held:
            _accept_or_discard(response, part, held)
            return
        response.raise_for_status()
        resumed = _resumes_at(response, held)
        _append(response, part, held if resumed else 0)


def _accept_or_discard(response: requests.Response, part: Path, held: int) -> None:
    """No byte is left to send: ``part`` is whole if it has the stated length, else it is begun again."""
    if response.headers.get("Content-Range", "").endswith(f"/{held}"):
        return
    part.unlink()
    raise requests.ConnectionError("the partial download does not fit the server's file")


def _resumes_at(response: requests.Response, held: int) -> bool:
    """Whether the server sends the bytes from ``held`` on."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return start is not None and int(start[1]) == held


def _append(response: requests.Response, part: Path, held: int) -> None:
    """Write the response's body from byte ``held`` of ``part`` on, with progress."""
    length = response.headers.get("Content-Length")
    total = held + int(length) if length else None
    bar = tqdm(total=total, initial=held, unit="B", unit_scale=True, desc=part.stem)
    with part.open("ab" if held else "wb") as file, bar:
        for chunk in response.iter_content(CHUNK_BYTES):
            file.write(chunk)
            bar.update(len(chunk))


def _is_final(error: requests.RequestException) -> bool:
    """Whether repeating the request is pointless."""
    status = error.response.status_code if error.response is not None else 500
    return 400 <= status < 500 and status not in PASSING_CLIENT_ERRORS


def _unavailable(published: Published, error: requests.RequestException) -> UserError:
    """The one line for a user without network and mirror."""
    cause = f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
    problem = f"in no mirror, and {published.url} could not be downloaded ({cause})"
    return UserError(published.name, problem, f"connect, or set {MIRRORS_VARIABLE} to a folder that holds the file")
