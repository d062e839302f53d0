"""Attention distance: maps whose distance is known, brute force over pairs of patches, and the rows of a model."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from small_models import small_model
from spatialmae.data.dataset import ImageData, consecutive_splits
from spatialmae.evaluation.measure import MeasuredModel
from spatialmae.evaluation.shared import Shared
from spatialmae.measures import MEASURES
from spatialmae.measures.attention_distance import head_distances, mean_distance
from spatialmae.model.trained import TrainedModel

GRID, PATCH = (3, 4), 2
N = 13  # tokens


def by_hand(attention: np.ndarray) -> float:
    """Of one map of one head."""
    patches = list(itertools.product(range(GRID[0]), range(GRID[1])))
    means = []
    for query, at in enumerate(patches):
        weights = attention[1 + query, 1:] / attention[1 + query, 1:].sum()
        means.append(sum(w * PATCH * math.dist(at, key) for w, key in zip(weights, patches, strict=True)))
    return sum(means) / len(means)


def test_distances_are_those_of_all_pairs_of_patches():
    drawn = torch.rand(2, 3, N, N, generator=torch.Generator().manual_seed(0))
    found = mean_distance(drawn.softmax(dim=-1), PATCH, GRID)
    for image, head in itertools.product(range(2), range(3)):
        assert float(found[image, head]) == pytest.approx(by_hand(drawn[image, head].softmax(dim=-1).numpy()), rel=1e-6)


def test_uniform_attention_has_the_mean_distance_of_patches_and_the_identity_none():
    uniform = mean_distance(torch.full((1, 1, N, N), 1 / N), PATCH, GRID)
    pairs = itertools.product(itertools.product(range(GRID[0]), range(GRID[1])), repeat=2)
    assert float(uniform) == pytest.approx(np.mean([PATCH * math.dist(*pair) for pair in pairs]))
    assert float(mean_distance(torch.eye(N)[None, None], PATCH, GRID)) == 0


def test_what_goes_to_cls_is_left_out():
    maps = torch.rand(1, 1, N, N, generator=torch.Generator().manual_seed(1))
    other = maps.clone()
    other[..., 0], other[..., 0, :] = 100, 7
    torch.testing.assert_close(mean_distance(other, PATCH, GRID), mean_distance(maps, PATCH, GRID))


def test_a_model_has_a_row_for_each_block_and_head_of_its_own_maps():
    trained = TrainedModel(small_model(torch.float32).eval(), (0.2, 0.6), (0.5, 0.25))
    config = trained.model.config
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 2), dtype=np.uint8)
    data = ImageData("made up", images, consecutive_splits(10, 10, 30))
    shared = Shared(data, Path("none"), 0, Path("none"), lambda *asked: asked[-1]())
    model = MeasuredModel("a", 0, {}, lambda: trained, {})
    [part] = MEASURES["attention_distance"].rows(model, {}, shared).values()
    assert [(row["block"], row["head"]) for row in part] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert {row["n_images"] for row in part} == {30}
    kept: dict = {}
    with torch.no_grad():
        trained.model.encode(trained.normalise(torch.from_numpy(images[20:])), kept=kept)
    expected = [mean_distance(kept[f"encoder/block{i}/attention"], 2, config.grid).mean(dim=0) for i in range(2)]
    found = np.array([row["attention_distance"] for row in part]).reshape(2, 2)
    np.testing.assert_allclose(found, torch.stack(expected), rtol=1e-5)
    np.testing.assert_allclose(head_distances(trained, images[20:]), found)
    assert len(np.unique(found.round(6))) == 4
    assert found.max() < 2 * math.hypot(3, 3)
