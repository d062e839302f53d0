"""Settings and fixtures of all tests."""

import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from chromium import find_chromium
from spatialmae.data.download import MIRRORS_VARIABLE

# A shared machine may stall for longer than an example's deadline.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

CHROMIUM = find_chromium()
collect_ignore = [] if CHROMIUM else ["test_report_browser.py"]


def pytest_report_header() -> str:
    """Says where the report is looked at, or that it is not."""
    return f"browser: {CHROMIUM or 'no Chromium found, so tests of the report in a browser are NOT run'}"


@pytest.fixture(scope="session")
def trained_models(tmp_path_factory):
    """Tiny trained models, each made once in a session for all workers: trained_models.TrainedModels."""
    from trained_models import TrainedModels  # imports torch, which takes a second

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "trained_models"
    folder.mkdir(exist_ok=True)
    return TrainedModels(folder)


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """An empty folder that is searched for archives, beside which a test downloads to."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv(MIRRORS_VARIABLE, str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def write_archive(path: Path, mode: str, files: Mapping[str, bytes], extra: Sequence[tarfile.TarInfo] = ()) -> Path:
    """A tar archive of files, and of ``extra`` members: links, or so many zero bytes."""
    with tarfile.open(path, mode) as tar:
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
