"""The closed form against gradient descent, enumeration, Monte Carlo, PCA, and itself done another way."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.utils.estimator_checks import parametrize_with_checks

from spatialmae.geometry import patch_labels
from spatialmae.linear import LinearDAE, LinearMAE, Moments, Sweep
from spatialmae.linear.closed_form import BlockWhitening, solve
from spatialmae.linear.objective import Corruption
from spatialmae.masks import bernoulli_masks, fixed_count_masks


def correlated(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    distance = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    return rng.normal(size=(n, d)) @ np.linalg.cholesky(np.exp(-distance / 2)).T + rng.normal(size=d)


@parametrize_with_checks([LinearMAE(), LinearMAE(mask_ratio=0.0, n_components=1), LinearDAE()])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def all_masks(n_patches: int, mask_ratio: float, masking: str) -> tuple[np.ndarray, np.ndarray]:
    """Every mask (true = hidden) with its probability."""
    if masking == "bernoulli":
        masks = np.array(list(product([False, True], repeat=n_patches)))
        hidden = masks.sum(axis=1)
        return masks, mask_ratio**hidden * (1 - mask_ratio) ** (n_patches - hidden)
    visible = int(n_patches * (1 - mask_ratio) + 1e-9)
    kept = list(combinations(range(n_patches), visible))
    masks = np.ones((len(kept), n_patches), dtype=bool)
    for mask, patches in zip(masks, kept, strict=True):
        mask[list(patches)] = False
    return masks, np.full(len(kept), 1 / len(kept))


@pytest.mark.parametrize("masking", ["bernoulli", "fixed"])
@pytest.mark.parametrize("n_features", [8, 7])  # 7: the last patch is shorter
def test_loss_is_the_average_over_all_masks(masking, n_features):
    X = correlated(40, n_features)
    mae = LinearMAE(3, mask_ratio=0.5, patch_size=2, masking=masking).fit(X)
    masks, probabilities = all_masks(4, 0.5, masking)
    errors = [((X - mae.reconstruct(X, np.tile(mask, (40, 1)))) ** 2).sum(axis=1).mean() for mask in masks]
    assert mae.loss_ == pytest.approx(probabilities @ errors, rel=1e-12)
    assert mae.score(X) == pytest.approx(-mae.loss_, rel=1e-12)


@pytest.mark.parametrize("masking", ["bernoulli", "fixed"])
def test_score_on_new_data_is_the_average_over_all_masks(masking):
    X, other = correlated(60, 8), correlated(25, 8, seed=1)
    mae = LinearMAE(3, mask_ratio=0.25, patch_size=2, masking=masking).fit(X)
    masks, probabilities = all_masks(4, 0.25, masking)
    errors = [((other - mae.reconstruct(other, np.tile(m, (25, 1)))) ** 2).sum(axis=1).mean() for m in masks]
    assert mae.score(other) == pytest.approx(-(probabilities @ errors), rel=1e-12)


@pytest.mark.parametrize(("masking", "draw"), [("bernoulli", bernoulli_masks), ("fixed", fixed_count_masks)])
def test_loss_agrees_with_monte_carlo_masks(masking, draw):
    shape = (4, 4, 2)
    X = correlated(200, 32)
    mae = LinearMAE(5, mask_ratio=0.75, patch_size=1, image_shape=shape, masking=masking).fit(X)
    rng, repeats = np.random.default_rng(0), 200
    losses = [((X - mae.reconstruct(X, draw(200, 16, 0.75, rng))) ** 2).sum(axis=1).mean() for _ in range(repeats)]
    standard_error = np.std(losses, ddof=1) / np.sqrt(repeats)
    assert abs(np.mean(losses) - mae.loss_) < 4 * standard_error


def gradient_descent(S, labels, corruption, k, seed=0):
    """Minimise the objective (2) over A and B from a random start, by L-BFGS on its autograd gradient."""
    S_ = torch.from_numpy(S)
    Q = torch.from_numpy(corruption.input_moments(S, labels))
    generator = torch.Generator().manual_seed(seed)
    A, B = (
        (0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for shape in ((len(S), k), (k, len(S)))
    )
    optimizer = torch.optim.LBFGS(
        [A, B],
        max_iter=3000,
        max_eval=6000,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def objective():
        W = A @ B
        return torch.trace(S_) - 2 * corruption.gain * torch.sum(S_ * W.T) + torch.sum(W * (Q @ W))

    def closure():
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer.step(closure)
    return objective().item(), (A @ B).detach().numpy()


CORRUPTIONS = {
    "bernoulli": Corruption.bernoulli(0.6),
    "fixed": Corruption.fixed_count(0.5, 4),
    "one visible": Corruption.fixed_count(0.75, 4),
    "noise": Corruption.gaussian(0.5),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_gradient_descent_finds_the_closed_form(name):
    S = np.cov(correlated(300, 12).T)
    labels = patch_labels(12, 3)
    solution = solve(S, labels, CORRUPTIONS[name], 3)
    loss, W = gradient_descent(S, labels, CORRUPTIONS[name], 3)
    assert loss == pytest.approx(solution.loss, rel=1e-9)
    assert np.abs(W - solution.encoder @ solution.decoder).max() < 1e-4


def test_wrong_patch_size_misses_the_optimum():
    """Negative control: what is optimal for patches of 2 is not for patches of 3."""
    S = np.cov(correlated(300, 12).T)
    corruption = Corruption.bernoulli(0.6)
    wrong = solve(S, patch_labels(12, 2), corruption, 3)
    attained = corruption.expected_loss(S, patch_labels(12, 3), wrong.encoder, wrong.decoder)
    optimum, _ = gradient_descent(S, patch_labels(12, 3), corruption, 3)
    assert attained > optimum * 1.001


@pytest.mark.parametrize("n_components", [1, 4, None])
def test_nothing_masked_is_pca(n_components):
    X = correlated(50, 9)
    pca = PCA(n_components, svd_solver="full").fit(X)
    for estimator in (LinearMAE(n_components, mask_ratio=0), LinearDAE(n_components, noise_std=0)):
        estimator.fit(X)
        np.testing.assert_allclose(estimator.decoder_, pca.components_, atol=1e-10)
        np.testing.assert_allclose(estimator.encoder_, pca.components_.T, atol=1e-10)
        np.testing.assert_allclose(estimator.eigenvalues_, pca.explained_variance_ * 49 / 50, atol=1e-10)


def test_denoiser_against_sampled_noise():
    X, rng = correlated(400, 6), np.random.default_rng(0)
    dae = LinearDAE(3, noise_std=0.7).fit(X)
    losses = [((X - dae.reconstruct(X + rng.normal(0, 0.7, X.shape))) ** 2).sum(axis=1).mean() for _ in range(300)]
    assert dae.loss_ == pytest.approx(np.mean(losses), abs=4 * np.std(losses) / np.sqrt(300))
    assert dae.score(X) == pytest.approx(-dae.loss_, rel=1e-12)


@pytest.mark.parametrize("masking", ["bernoulli", "fixed"])
def test_eigenvalues_are_those_of_the_theorem_and_give_the_loss(masking):
    X, labels = correlated(300, 12), patch_labels(12, 3)
    S = np.cov(X.T, bias=True)
    D = S * (labels[:, None] == labels[None, :])
    mae = LinearMAE(5, mask_ratio=0.5, patch_size=3, masking=masking).fit(X)
    # Fixed: 2 of 4 patches visible, so q = 1/2 and c₂ = q (2 − 1)/(4 − 1) = 1/6.
    V, scale = (0.5 * S + 0.5 * D, 0.5) if masking == "bernoulli" else (S / 6 + (1 / 2 - 1 / 6) * D, 0.25)
    expected = np.sort(np.linalg.eigvals(S @ np.linalg.solve(V, S)).real)[::-1][:5]
    np.testing.assert_allclose(mae.eigenvalues_, expected, rtol=1e-9)
    assert mae.loss_ == pytest.approx(np.trace(S) - scale * expected.sum(), rel=1e-10)


def test_full_rank_is_the_ridge_like_solution():
    """Full rank: W = V⁻¹ S (paper A)."""
    S, labels, m = np.cov(correlated(300, 12).T), patch_labels(12, 3), 0.4
    D = S * (labels[:, None] == labels[None, :])
    solution = solve(S, labels, Corruption.bernoulli(m), 12)
    expected = np.linalg.solve((1 - m) * S + m * D, S)
    np.testing.assert_allclose(solution.encoder @ solution.decoder, expected, atol=1e-9)
    assert solution.loss == pytest.approx(np.trace(S) - (1 - m) * np.trace(S @ expected), rel=1e-10)
    np.testing.assert_allclose(Sweep.of(S, labels).full_rank_map(Corruption.bernoulli(m)), expected, atol=1e-9)


@settings(max_examples=40)
@given(
    d=st.integers(2, 14),
    patch_size=st.integers(1, 5),
    mask_ratio=st.floats(0.05, 0.95),
    rank=st.integers(1, 14),
    n=st.integers(2, 30),
    constant=st.sets(st.integers(0, 13), max_size=4),
    seed=st.integers(0, 99),
)
def test_sweep_and_direct_solution_agree_at_any_rank_of_the_data(d, patch_size, mask_ratio, rank, n, constant, seed):
    X = correlated(n, d, seed)
    X[:, [i for i in constant if i < d]] = 1.0
    S = np.cov(X.T, bias=True).reshape(d, d)
    labels, corruption = patch_labels(d, patch_size), Corruption.bernoulli(mask_ratio)
    if np.trace(S) == 0:
        return
    sweep = Sweep.of(S, labels)
    rank = min(rank, len(sweep.mu), int(np.linalg.matrix_rank(S, hermitian=True)))
    shared, direct = sweep.solve(corruption, rank), solve(S, labels, corruption, rank)
    assert shared.loss == pytest.approx(direct.loss, abs=1e-9 * np.trace(S))
    attained = corruption.expected_loss(S, labels, shared.encoder, shared.decoder)
    assert attained == pytest.approx(shared.loss, abs=1e-8 * np.trace(S))
    np.testing.assert_allclose(shared.decoder @ shared.decoder.T, np.eye(rank), atol=1e-6)
    full = solve(S, labels, corruption, d)
    assert sweep.full_rank_loss(corruption) == pytest.approx(full.loss, abs=1e-9 * np.trace(S))


@settings(max_examples=30)
@given(seed=st.integers(0, 999), mask_ratio=st.floats(0.05, 0.9), scale=st.floats(1e-3, 1.0))
def test_no_perturbation_lowers_the_loss(seed, mask_ratio, scale):
    rng = np.random.default_rng(seed)
    S, labels = np.cov(correlated(60, 10, seed).T), patch_labels(10, 2)
    corruption = Corruption.bernoulli(mask_ratio)
    best = solve(S, labels, corruption, 3)
    encoder = best.encoder + scale * rng.normal(size=best.encoder.shape)
    decoder = best.decoder + scale * rng.normal(size=best.decoder.shape)
    assert corruption.expected_loss(S, labels, encoder, decoder) >= best.loss


def test_sweep_finds_the_same_map_as_the_direct_solution():
    S, labels = np.cov(correlated(500, 24).T), patch_labels(24, 3)
    sweep = Sweep.of(S, labels)
    for m in (0.1, 0.5, 0.9):
        for corruption in (Corruption.bernoulli(m), Corruption.fixed_count(m * 5 / 6, 8)):
            shared, direct = sweep.solve(corruption, 6), solve(S, labels, corruption, 6)
            np.testing.assert_allclose(shared.decoder, direct.decoder, atol=1e-8)
            np.testing.assert_allclose(shared.encoder, direct.encoder, atol=1e-8)


def test_whitening_ignores_constant_features():
    X = correlated(100, 8)
    X[:, 2] = 5.0
    S, labels = np.cov(X.T), patch_labels(8, 4)
    whitening = BlockWhitening.of(S, labels)
    correlation = whitening.correlation(S)
    projector = whitening.whiten(whitening.color(np.eye(8)))
    np.testing.assert_allclose(np.diag(projector), [1, 1, 0, 1, 1, 1, 1, 1], atol=1e-12)
    np.testing.assert_allclose(correlation[:4, :4], projector[:4, :4], atol=1e-10)


@pytest.mark.parametrize("border", [0.0, 77 / 255, 128 / 255, 200 / 255, 1.0])
def test_a_frame_of_any_gray_gets_no_weight(border):
    """Moments of a constant pixel are rounding errors, which must not pass for variance."""
    images = np.full((400, 8, 8), border)
    images[:, 2:6, 2:6] = correlated(400, 16).reshape(400, 4, 4)
    S = Moments.from_batches([images.reshape(400, 64)]).covariance
    labels, frame = patch_labels(64, 2, (8, 8)), np.ones((8, 8), dtype=bool)
    frame[2:6, 2:6] = False
    sweep = Sweep.of(S, labels)
    assert len(sweep.mu) == 16
    assert np.abs(sweep.solve(Corruption.bernoulli(0.5), 8).encoder[frame.ravel()]).max() < 1e-6


def test_streamed_moments_equal_those_in_memory():
    X = correlated(101, 7)
    whole = Moments.from_batches([X])
    streamed = Moments.from_batches(X[i : i + 13] for i in range(0, 101, 13))
    summed = Moments.from_batches([X[:40]]) + Moments.from_batches([X[40:]])
    np.testing.assert_allclose(whole.covariance, np.cov(X.T, bias=True), atol=1e-12)
    for other in (streamed, summed):
        assert other.n_samples == 101
        np.testing.assert_allclose(other.mean, whole.mean, atol=1e-13)
        np.testing.assert_allclose(other.second_moment, whole.second_moment, atol=1e-12)
    with pytest.raises(ValueError, match="no samples"):
        Moments.from_batches([])


@pytest.mark.parametrize("center", [True, False])
def test_fit_moments_equals_fit(center):
    X = correlated(80, 8)
    arguments = {"mask_ratio": 0.5, "patch_size": 2, "center": center}
    moments = Moments.from_batches([X])
    a = LinearMAE(3, **arguments).fit(X)
    b = LinearMAE(3, **arguments).fit_moments(moments.second_moment, mean=moments.mean, n_samples=80)
    np.testing.assert_allclose(a.encoder_, b.encoder_, atol=1e-9)
    np.testing.assert_allclose(a.mean_, b.mean_, atol=1e-12)
    assert a.loss_ == pytest.approx(b.loss_, rel=1e-10)
    assert (b.n_features_in_, b.n_samples_) == (8, 80)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LinearMAE(mask_ratio=1.0), "mask_ratio"),
        (LinearMAE().set_params(masking="random"), "masking"),
        (LinearMAE(9), "n_components"),
        (LinearMAE(patch_size=3, image_shape=(2, 4)), "tile"),
        (LinearMAE(patch_size=4, masking="fixed"), "none of 2 patches visible"),
        (LinearDAE(noise_std=-1.0), "noise_std"),
    ],
)
def test_impossible_parameters_are_refused(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(correlated(20, 8))


def test_bad_moments_and_masks_are_refused():
    X = correlated(20, 4)
    S = np.cov(X.T)
    with pytest.raises(ValueError, match="needs the mean"):
        LinearMAE().fit_moments(S)
    with pytest.raises(ValueError, match="symmetric"):
        LinearMAE(center=False).fit_moments(np.triu(S))
    with pytest.raises(ValueError, match="mean has shape"):
        LinearMAE().fit_moments(S, mean=np.zeros(3))
    with pytest.raises(ValueError, match=r"mask has shape \(20, 3\)"):
        LinearMAE().fit(X).reconstruct(X, np.zeros((20, 3)))
