"""Artifacts are whole or absent, and damaged ones are said so in a line."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from refusals import refused
from spatialmae import tensorfile
from spatialmae.artifacts import atomic_path, locked, read_tensors, write_json, write_tensors, write_text
from spatialmae.data.dataset import ImageData
from spatialmae.tables import read_table, write_table


def test_failure_leaves_nothing_and_keeps_the_old(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_artifacts_are_readable_by_others_as_the_umask_says(tmp_path):
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_lock_is_held_once_and_free_after_a_failure(tmp_path):
    lock = tmp_path / "deep" / "lock"
    with pytest.raises(RuntimeError), locked(lock):
        with pytest.raises(BlockingIOError), locked(lock, wait=False):
            pass
        raise RuntimeError
    with locked(lock, wait=False):
        pass


def test_tables_and_tensors_come_back(tmp_path):
    table = pd.DataFrame({"verdict": ["NULL", "REPLICATED"], "value": [0.1, np.nan]})
    write_table(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table)
    write_tensors(
        tmp_path / "a.safetensors", {"x/a": np.arange(6).reshape(2, 3)[:, ::-1], "y": np.zeros(2)}, {"k": [1]}
    )
    tensors, metadata = read_tensors(tmp_path / "a.safetensors", prefix="x/")
    assert metadata == {"k": [1]}
    assert {name: array.tolist() for name, array in tensors.items()} == {"x/a": [[2, 1, 0], [5, 4, 3]]}


def test_json_refuses_what_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    with pytest.raises(ValueError, match="Out of range"):
        write_tensors(tmp_path / "a.safetensors", {}, {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    path, synced = tmp_path / "a.txt", []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, path.exists())))
    write_text(path, "text")
    assert synced == [(4, False)]


STORED = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
ARRAYS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.sampled_from(STORED).flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, min_side=0, max_side=3))),
    max_size=4,
)


@given(ARRAYS, st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_tensors_go_to_the_safetensors_package_and_come_from_it(tensors, metadata):
    def check(found):
        assert found.keys() == tensors.keys()
        for name, array in tensors.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        with path.open("wb") as file:
            tensorfile.write(file, tensors, metadata)
        check(safetensors.numpy.load_file(path))
        with safetensors.safe_open(path, "numpy") as file:
            assert (file.metadata() or {}) == metadata
        # Given empty metadata and no tensor, the package's version 0.8 writes a header that is no JSON.
        safetensors.numpy.save_file(tensors, path, metadata or None)
        found, header = tensorfile.read(path, lambda name: True)
        check(found)
        assert header == metadata


def entry(begin=0, end=8, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def tensor_file(header, n_bytes=8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(n_bytes)


META = {"__metadata__": {"spatialmae": "null"}}
HOSTILE = {
    "no mapping": (tensor_file([META]), "no mapping"),
    "not UTF-8": (tensor_file('{"é": 1}'.encode("utf-16")), "codec"),
    "not JSON": (tensor_file(b'{"a": '), "Expecting value"),
    "a name twice": (tensor_file(b'{"a": %b, "a": %b}' % ((json.dumps(entry()).encode(),) * 2)), "twice"),
    "a key twice": (tensor_file(b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [], "data_offsets": []}}'), "twice"),
    "nesting": (tensor_file(b'{"a": ' + b"[" * 200_000), "nested too deeply"),
    "nested metadata": (tensor_file({"__metadata__": {"spatialmae": "[" * 200_000}}, 0), "recursion"),
    "metadata no mapping": (tensor_file({"__metadata__": ["spatialmae"]}, 0), "no mapping of strings"),
    "metadata no strings": (tensor_file({"__metadata__": {"spatialmae": {}}}, 0), "no mapping of strings"),
    "another's metadata": (tensor_file({"__metadata__": {"format": "pt"}}, 0), "spatialmae"),
    "an entry no mapping": (tensor_file(META | {"a": 3}), "entry of 'a'"),
    "an unknown type": (tensor_file(META | {"a": entry(dtype="F128")}), "entry of 'a'"),
    "a type no name": (tensor_file(META | {"a": entry(dtype=[])}), "entry of 'a'"),
    "a shape missing": (tensor_file(META | {"a": {"dtype": "F32", "data_offsets": [0, 8]}}), "entry of 'a'"),
    "a shape no list": (tensor_file(META | {"a": entry(0, 4) | {"shape": {}}}, 4), "entry of 'a'"),
    "a shape of text": (tensor_file(META | {"a": entry() | {"shape": "2"}}), "entry of 'a'"),
    "a shape of truths": (tensor_file(META | {"a": entry(0, 4, shape=[True])}, 4), "entry of 'a'"),
    "a shape of fractions": (tensor_file(META | {"a": entry(shape=[2.0])}), "entry of 'a'"),
    "a negative shape": (tensor_file(META | {"a": entry(shape=[-1, -2])}), "entry of 'a'"),
    "a shape beyond numpy's": (tensor_file(META | {"a": entry(0, 0, shape=[0, 2**70])}, 0), "entry of 'a'"),
    "a product beyond numpy's": (tensor_file(META | {"a": entry(0, 0, shape=[0, 2**62, 2**62])}, 0), ""),
    "too many dimensions": (tensor_file(META | {"a": entry(0, 4, shape=[1] * 99)}, 4), "dimension"),
    "offsets no pair": (tensor_file(META | {"a": entry() | {"data_offsets": [0, 4, 8]}}), "entry of 'a'"),
    "offsets no numbers": (tensor_file(META | {"a": entry(0.0, 8.0)}), "entry of 'a'"),
    "offsets of nothing": (tensor_file(META | {"a": entry(None, None)}), "entry of 'a'"),
    "a range too short": (tensor_file(META | {"a": entry(0, 4)}, 4), "entry of 'a'"),
    "a range backwards": (tensor_file(META | {"a": entry(8, 0)}), "entry of 'a'"),
    "a range beyond the file": (tensor_file(META | {"a": entry()}, 4), "take 8 bytes, and the file holds 4"),
    "bytes shared": (tensor_file(META | {"a": entry(), "b": entry()}), "'b' begins at byte 0"),
    "bytes shared in part": (tensor_file(META | {"a": entry(), "b": entry(4, 12)}, 12), "'b' begins at byte 4"),
    "a hole": (tensor_file(META | {"b": entry(), "a": entry(12, 20)}, 20), "'a' begins at byte 12"),
    "a hole before": (tensor_file(META | {"a": entry(4, 12)}, 12), "'a' begins at byte 4"),
    "bytes after": (tensor_file(META | {"a": entry()}, 9), "take 8 bytes, and the file holds 9"),
}


@pytest.mark.parametrize(("content", "problem"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_said_so_in_a_line(tmp_path, content, problem):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with refused("a.safetensors", "delete it and run its stage again", about=problem):
        read_tensors(path)


def test_tensors_in_any_order_and_without_bytes_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    header = META | {
        "b": entry(8, 16),
        "a": entry(),
        "none": entry(8, 8, shape=[3, 0]),
        "last": entry(16, 16, shape=[0]),
    }
    path.write_bytes(tensor_file(header, 0) + np.arange(4, dtype="<f4").tobytes())
    tensors, _ = read_tensors(path)
    found = {name: array.tolist() for name, array in tensors.items()}
    assert found == {"b": [2, 3], "a": [0, 1], "none": [[], [], []], "last": []}


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_tensors_are_said_so(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with refused("a.safetensors", "delete it and run its stage again"):
        read_tensors(path)


def test_missing_and_empty_files_are_said_so(tmp_path):
    (tmp_path / "empty.csv").touch()
    for call, name, hint in (
        (lambda: read_table(tmp_path / "no.csv"), "no.csv", "run the stage that makes it"),
        (lambda: read_table(tmp_path / "empty.csv"), "empty.csv", "run its stage again"),
        (lambda: read_tensors(tmp_path / "no.safetensors"), "no.safetensors", "run the stage that makes it"),
    ):
        with refused(name, hint):
            call()


def image_data(n: int = 30, sources: np.ndarray | None = None) -> ImageData:
    rng = np.random.default_rng(0)
    order = rng.permutation(n)
    parts = zip(("train", "validation", "test"), np.split(order, [n // 2, 3 * n // 4]), strict=True)
    return ImageData(
        "toy",
        rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8),
        {name: np.sort(rows) for name, rows in parts},
        targets={"label": rng.integers(0, 3, n)},
        class_names={"label": ("a", "b", "c")},
        sources=sources,
        provenance={"seed": 0},
    )


def test_image_data_come_back(tmp_path):
    data = image_data(sources=np.arange(30) % 5)
    data.save(tmp_path / "d.safetensors")
    back = ImageData.load(tmp_path / "d.safetensors")
    assert (back.name, back.class_names, back.provenance) == (data.name, data.class_names, data.provenance)
    np.testing.assert_array_equal(back.images, data.images)
    np.testing.assert_array_equal(back.sources, data.sources)
    np.testing.assert_array_equal(back.target("label", "test"), data.target("label", "test"))


def test_features_are_pixels_in_c_order():
    data = image_data()
    features = data.features("train")
    first = data.images[data.splits["train"][0]]
    np.testing.assert_allclose(features[0], first.ravel() / 255)
    assert data.image_shape == (4, 4, 1)


def test_replicates_leave_out_disjoint_parts_of_every_split():
    data = image_data(40)
    for split in ("train", "validation", "test"):
        left_out = [
            set(data.splits[split]) - set(data.leave_out(g, 5, rng_seed=1).splits[split].tolist()) for g in range(5)
        ]
        assert set.union(*left_out) == set(data.splits[split])
        assert sum(map(len, left_out)) == len(data.splits[split])
    again, other = data.leave_out(0, 5, rng_seed=1), data.leave_out(0, 5, rng_seed=2)
    assert np.array_equal(again.splits["train"], data.leave_out(0, 5, rng_seed=1).splits["train"])
    assert not np.array_equal(again.splits["train"], other.splits["train"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"train": np.array([0]), "validation": np.array([0]), "test": np.array([1])}}, "two splits"),
        ({"splits": {"train": np.array([0]), "validation": np.array([1]), "test": np.array([99])}}, "outside"),
        ({"splits": {"train": np.array([0])}}, "splits are"),
        ({"targets": {"label": np.zeros(3, dtype=np.int64)}}, "3 rows for 30 images"),
    ],
)
def test_inconsistent_image_data_are_refused(change, message):
    data = image_data()
    arguments = {"name": "toy", "images": data.images, "splits": data.splits} | change
    with pytest.raises(ValueError, match=message):
        ImageData(**arguments)


@pytest.mark.parametrize(("group", "groups", "message"), [(5, 5, "not one of"), (0, 40, "too few")])
def test_impossible_groups_are_refused(group, groups, message):
    with pytest.raises(ValueError, match=message):
        image_data().leave_out(group, groups, rng_seed=0)
