"""Attention on objects: hand-made maps whose measures are known, and a model's own maps."""

import numpy as np
import pytest
import torch

from small_models import small_model
from spatialmae.analysis.attention import (
    QUERIES,
    PatchAttention,
    Scene,
    attention_pictures,
    attention_rows,
    block_attention,
    object_fractions,
)
from spatialmae.data.dead_leaves import dead_leaves
from spatialmae.model.trained import TrainedModel

PATCH, GRID = 2, (3, 4)
N_PATCHES = 12
CLS, OBJECT, ALL = (QUERIES.index(name) for name in ("cls", "object", "all"))


def segmentation() -> np.ndarray:
    """Two images of 6 × 8 px: patches 5 and 6 wholly on the object; patches 0 wholly and 1 to a quarter."""
    labels = np.zeros((2, 6, 8), dtype=np.uint8)
    labels[0, 2:4, 2:6] = 1
    labels[1, 0:2, 0:2] = 1
    labels[1, 0, 2] = 1
    return labels


SCENE = Scene.of(segmentation(), PATCH)


def attention_of(maps: np.ndarray, to_cls: float = 0.0) -> PatchAttention:
    return PatchAttention(np.broadcast_to(maps, (2, 13, 12)).copy(), np.full((2, 13), to_cls))


def attending_to(patch: int) -> np.ndarray:
    maps = np.zeros((13, 12))
    maps[:, patch] = 1
    return maps


def test_a_patch_across_the_border_is_partly_on_the_object():
    fractions = object_fractions(segmentation(), PATCH)
    expected = np.zeros((2, 12))
    expected[0, [5, 6]] = 1
    expected[1, [0, 1]] = 1, 0.25
    np.testing.assert_array_equal(fractions, expected)
    np.testing.assert_array_equal(object_fractions(segmentation(), PATCH, label=0), 1 - expected)


def test_uniform_attention_favours_nothing():
    measures = SCENE.measures(attention_of(np.full((13, 12), 1 / 12), to_cls=1 / 13))
    np.testing.assert_allclose(measures["object_attention"], 1)
    np.testing.assert_allclose(measures["attention_entropy"], np.log(12))
    np.testing.assert_allclose(measures["cls_attention"], 1 / 13)
    np.testing.assert_allclose(measures["attention_distance"], SCENE.uniform_distance())


def test_attention_on_one_patch_by_hand():
    measures = SCENE.measures(attention_of(attending_to(5)))
    # All attention on the object, which has 2 of 12 patches; none on it in the second image.
    np.testing.assert_allclose(measures["object_attention"], [[6] * 3, [0] * 3])
    np.testing.assert_allclose(measures["attention_entropy"], 0)
    # From patches 5 and 6 (row 1, columns 1 and 2), and from 0 and, with a quarter of its weight, 1, to patch 5; px.
    expected = [(0 + 2) / 2, (np.sqrt(8) + 0.25 * 2) / 1.25]
    np.testing.assert_allclose(measures["attention_distance"][:, OBJECT], expected)
    rows, columns = np.divmod(np.arange(12), 4)
    from_all = 2 * np.hypot(rows - 1, columns - 1).mean()
    np.testing.assert_allclose(measures["attention_distance"][:, ALL], from_all)
    assert np.isnan(measures["attention_distance"][:, CLS]).all()
    # On the patch that straddles: a quarter of the attention counts, of an object of 1.25 patches.
    straddling = SCENE.measures(attention_of(attending_to(1)))["object_attention"]
    np.testing.assert_allclose(straddling[1], 0.25 / (1.25 / 12))


def test_each_query_reads_its_own_rows():
    maps = np.full((13, 12), 1 / 12)
    maps[0] = attending_to(5)[0]  # [CLS] looks at the object of the first image
    maps[6:8] = [attending_to(6)[0], attending_to(11)[0]]  # of its tokens 5 and 6, one does, one does not
    share = SCENE.measures(attention_of(maps))["object_attention"]
    np.testing.assert_allclose(share[0], [6, 3, (6 + 0 + 10) / 12])
    np.testing.assert_allclose(share[1], [0, 1, (0 + 0 + 10) / 12])


def test_entropy_is_that_of_the_map_that_heads_share():
    split = np.zeros((13, 12))
    split[:, [2, 9]] = 0.5
    np.testing.assert_allclose(SCENE.measures(attention_of(split))["attention_entropy"], np.log(2))


def test_heads_are_averaged_and_the_column_of_cls_is_left_out():
    heads = torch.zeros(1, 2, 13, 13)
    heads[0, 0, :, 0] = 0.5
    heads[0, 0, :, 3] = 0.5
    heads[0, 1, :, 5] = 1.0
    found = PatchAttention.of(heads)
    np.testing.assert_allclose(found.to_cls, 0.25)
    expected = np.zeros((1, 13, 12))
    expected[..., [2, 4]] = 1 / 3, 2 / 3
    np.testing.assert_allclose(found.maps, expected)


def test_images_without_the_object_are_refused():
    labels = segmentation()
    labels[1] = 0
    with pytest.raises(ValueError, match="1 images have no pixel of label 1"):
        Scene.of(labels, PATCH)


@pytest.fixture(scope="module")
def data():
    return dead_leaves(n_train=1, n_validation=1, n_test=12, image_size=16, seed=0)


def trained_run(**settings) -> TrainedModel:
    settings = {"image_size": 16, "patch_size": 4, "channels": 3} | settings
    model = small_model(torch.float32, **settings).eval()
    return TrainedModel(model, (0.4, 0.5, 0.5), (0.5, 0.25, 0.3))


def test_a_models_rows_are_those_of_its_maps_image_by_image(data):
    run, test = trained_run(), data.splits["test"]
    images, labels = data.images[test], data.targets["segmentation"][test]
    # Batches of one image, and all at once.
    rows, again = (attention_rows(run, images, labels, max_bytes=size) for size in (1, 2**27))
    assert [(row["block"], row["last_block"], row["query"]) for row in rows] == [
        (block, block == 2, query) for block in (1, 2) for query in QUERIES
    ]
    for row, other in zip(rows, again, strict=True):
        assert row.keys() == other.keys()
        values = [[r[name] for name in r if name != "query"] for r in (row, other)]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-4)
    kept: dict = {}
    with torch.no_grad():
        run.model.encode(run.normalise(torch.from_numpy(images)), kept=kept)
    maps = kept["encoder/block1/attention"].numpy().mean(axis=1)
    on_object = (labels.reshape(12, 4, 4, 4, 4) == 1).mean(axis=(2, 4)).reshape(12, 16)
    shares = []
    for n in range(12):
        row_of_cls = maps[n, 0, 1:] / maps[n, 0, 1:].sum()
        shares.append(row_of_cls @ on_object[n] / on_object[n].mean())
    cls = rows[3]
    assert cls["object_attention"] == pytest.approx(np.mean(shares), rel=1e-5)
    assert cls["cls_attention"] == pytest.approx(maps[:, 0, 0].mean(), rel=1e-5)
    assert cls["object_share"] == pytest.approx((labels == 1).mean())
    assert cls["n_images"] == 12


def test_attention_of_a_network_that_knows_nothing_is_uniform(data):
    run, test = trained_run(), data.splits["test"]
    for block in run.model.encoder:
        torch.nn.init.zeros_(block.attention.qkv.weight)
        torch.nn.init.zeros_(block.attention.qkv.bias)
    for row in attention_rows(run, data.images[test], data.targets["segmentation"][test]):
        assert row["object_attention"] == pytest.approx(1, abs=1e-6)
        assert row["object_attention_elsewhere"] == pytest.approx(1, abs=1e-6)
        assert row["attention_entropy"] == pytest.approx(np.log(16)) == row["attention_entropy_uniform"]
        assert row["cls_attention"] == pytest.approx(1 / 17, abs=1e-6)
        if row["query"] != "cls":
            assert row["attention_distance"] == pytest.approx(row["attention_distance_uniform"], abs=1e-5)


def test_attention_that_other_images_explain_is_no_more_on_the_object_than_elsewhere(data):
    # Positions alone decide, so that all images have one map, which still favours objects in the middle.
    run, test = trained_run(), data.splits["test"]
    torch.nn.init.zeros_(run.model.patch_embedding.weight)
    rows = attention_rows(run, data.images[test], data.targets["segmentation"][test])
    for row in rows:
        assert row["object_attention_elsewhere"] == pytest.approx(row["object_attention"], rel=0.2)
        assert row["object_attention"] != pytest.approx(1, abs=1e-3)
    # Two images that differ: each one's control is the other's map.
    run, two = trained_run(), test[:2]
    images, labels = data.images[two], data.targets["segmentation"][two]
    maps = next(blocks[1].maps for _, blocks in block_attention(run, images))
    swapped = Scene.of(labels, 4).object_share(maps[::-1].copy())
    rows = attention_rows(run, images, labels)[3:]
    found = [row["object_attention_elsewhere"] for row in rows]
    np.testing.assert_allclose(found, swapped.mean(axis=0), rtol=1e-6)
    own = Scene.of(labels, 4).object_share(maps).mean(axis=0)
    np.testing.assert_allclose([row["object_attention_relative"] for row in rows], own / found, rtol=1e-6)


def test_pictures_hold_the_attention_of_cls_and_of_the_objects_tokens(data):
    run, test = trained_run(patch_size=2), data.splits["test"][:3]
    images, labels = data.images[test], data.targets["segmentation"][test]
    pictures = attention_pictures(run, images, labels)
    assert pictures.shape == (3, 2, 2, 8, 8)
    np.testing.assert_allclose(pictures.sum(axis=(3, 4)), 1, atol=1e-5)
    maps = next(blocks[0].maps for _, blocks in block_attention(run, images))
    np.testing.assert_allclose(pictures[:, 0, 0], maps[:, 0].reshape(3, 8, 8), rtol=1e-5)
    weights = (labels == 1).reshape(3, 8, 2, 8, 2).mean(axis=(2, 4)).reshape(3, 64)
    of_object = np.stack([w @ m[1:] / w.sum() for w, m in zip(weights, maps, strict=True)])
    np.testing.assert_allclose(pictures[:, 0, 1].reshape(3, 64), of_object, rtol=1e-5)


def test_what_has_no_maps_or_no_comparison_is_refused(data):
    run, test = trained_run(), data.splits["test"]
    images, labels = data.images[test], data.targets["segmentation"][test]
    with pytest.raises(ValueError, match="two or more"):
        attention_rows(run, images[:1], labels[:1])
    run.model.set_attention_kernel("fused")
    with pytest.raises(ValueError, match="set_attention_kernel"):
        attention_rows(run, images, labels)
