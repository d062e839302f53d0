"""Artifacts are whole or absent, and damaged ones are said so in a line."""

import numpy as np
import pandas as pd
import pytest

from spatialmae.artifacts import atomic_path, read_tensors, write_json, write_tensors, write_text
from spatialmae.data.dataset import ImageData
from spatialmae.errors import UserError
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
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_tensors_are_said_so(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="a.safetensors: not a readable artifact"):
        read_tensors(path)


def test_missing_and_empty_files_are_said_so(tmp_path):
    (tmp_path / "empty.csv").touch()
    for call, message in (
        (lambda: read_table(tmp_path / "no.csv"), "table not found"),
        (lambda: read_table(tmp_path / "empty.csv"), "table is empty"),
        (lambda: read_tensors(tmp_path / "no.safetensors"), "artifact not found"),
    ):
        with pytest.raises(UserError, match=message):
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
