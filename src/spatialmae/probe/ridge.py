"""Ridge probes on nested linear features: one eigendecomposition per rank serves every penalty and target.

The features of rank k are the first k columns of the code (X − mean) A of an encoder A (d, k_max), nothing
hidden. They are standardised on the training split, the penalty is chosen on the validation split, and the
test split is scored once.

What such a probe cannot see: without the penalty it depends on the span of A alone, and an affine probe of
the same span gives the same answer. A linear DAE's features are the AE's principal components, each shrunk
(docs/theory.md, eq. 7): standardised, the two are identical, penalty included, so AE and DAE score the same
by construction, at every rank. A linear MAE differs by its span, and inside a span by the basis the penalty
acts on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from scipy.linalg import eigh
from sklearn.preprocessing import StandardScaler

from spatialmae.data.dataset import SPLITS, ImageData, Split

# Penalties on the sum of squares, as scikit-learn's Ridge defines alpha. With standardised features the
# Gram matrix has n on its diagonal, so this goes from no shrinkage to strong shrinkage for n = 10² … 10⁵.
ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 5, 8))

# Below this share of the largest variance a feature counts as constant. Directions without training variance
# (constant pixels, fewer images than pixels) are rounding error after projection; scaled to unit variance
# they would drown validation and test.
CONSTANT_SHARE = 1e-20

SplitArrays = Mapping[Split, Float64[np.ndarray, "_ _"]]
Score = Callable[[Float64[np.ndarray, "n t"], Float64[np.ndarray, "a n t"]], Float64[np.ndarray, " a"]]


@dataclass(frozen=True)
class RidgeProbe:
    """The score of one probe with the contract it was made under.

    Attributes:
        n_components: features used.
        score: on the test split.
        alpha: the penalty chosen.
        n_train, n_test: images fitted and scored.
        feature, normalisation, regulariser, selected_on: the contract, in words.
    """

    n_components: int
    score: float
    alpha: float
    n_train: int
    n_test: int
    feature: str = "linear code, nothing hidden"
    normalisation: str = "standardised on train"
    regulariser: str = "ridge"
    selected_on: str = "validation"

    def row(self, score_name: str, **keys: Any) -> dict[str, Any]:
        """A row of a tidy table: ``keys`` first, the score under the name it has for this probe."""
        fields = asdict(self)
        return {"n_components": fields.pop("n_components"), **keys, score_name: fields.pop("score"), **fields}


class LinearCode:
    """Features of the three splits, standardised on train, with what every ridge fit on them shares.

    Make one for each encoder and hand it to every probe: the projection, the Gram matrix and its
    eigendecompositions are computed once.

    Args:
        features: for each split (n, k) float64; a feature that is constant on train becomes 0.

    Raises:
        ValueError: a split is empty.
    """

    def __init__(self, features: SplitArrays) -> None:
        empty = [split for split in SPLITS if not len(features[split])]
        if empty:
            raise ValueError(f"no images to probe in split {empty[0]}")
        scaler = StandardScaler().fit(features["train"])
        varies = scaler.var_ > CONSTANT_SHARE * scaler.var_.max()
        self.features = {split: scaler.transform(features[split]) * varies for split in SPLITS}
        self._gram = self.features["train"].T @ self.features["train"]
        self._eigen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def project(
        cls, features: SplitArrays, encoder: Float64[np.ndarray, "d k"], mean: Float64[np.ndarray, " d"]
    ) -> LinearCode:
        """The code (X − mean) @ encoder of the images of :func:`split_features`."""
        # The mean moves the code by a constant row: cheaper to take off there than from every image.
        offset = mean @ encoder
        return cls({split: features[split] @ encoder - offset for split in SPLITS})

    def keep(self, chosen: Mapping[Split, Bool[np.ndarray, " _"]]) -> LinearCode:
        """The code of some of the images, standardised anew."""
        return LinearCode({split: self.features[split][chosen[split]] for split in SPLITS})

    def coefficients(
        self, cross: Float64[np.ndarray, "k t"], alphas: Float64[np.ndarray, " a"]
    ) -> Float64[np.ndarray, "a k t"]:
        """Ridge coefficients on the first k features for every penalty, (ZᵀZ + α I)⁻¹ Zᵀy with ``cross`` = Zᵀy.

        With ZᵀZ = Q Λ Qᵀ it is Q (Λ + α)⁻¹ Qᵀ Zᵀy, one eigendecomposition for all α and all t targets.
        """
        k = len(cross)
        if k not in self._eigen:
            values, vectors = eigh(self._gram[:k, :k])
            self._eigen[k] = np.maximum(values, 0.0), vectors
        values, vectors = self._eigen[k]
        return vectors @ ((vectors.T @ cross) / (values[None, :] + alphas[:, None])[:, :, None])


def split_features(data: ImageData) -> dict[Split, np.ndarray]:
    """The flattened images of every split; make it once for a data set, for all its encoders."""
    return {split: data.features(split) for split in SPLITS}


def variance_weighted_r2(
    target: Float64[np.ndarray, "n t"], prediction: Float64[np.ndarray, "a n t"]
) -> Float64[np.ndarray, " a"]:
    """R² over all outputs, each weighted by its variance, for each of a predictions; at most 1.

    As scikit-learn's ``r2_score(multioutput="variance_weighted")``: a constant output has no weight. NaN
    where every output is constant.
    """
    spread = ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    error = ((target - prediction) ** 2).sum(axis=1)
    varies = spread > 0
    if not varies.any():
        return np.full(len(prediction), np.nan)
    return 1.0 - error[:, varies].sum(axis=1) / spread.sum()


def indicator_accuracy(
    target: Float64[np.ndarray, "n t"], prediction: Float64[np.ndarray, "a n t"]
) -> Float64[np.ndarray, " a"]:
    """Share of images whose largest output is their class, for each of a predictions, 0 … 1.

    Args:
        target: +1 in the column of the class, −1 elsewhere; an image of a class without a column (not seen
            in training) is always wrong.
        prediction: the outputs of the regression on such targets.
    """
    chosen = prediction.argmax(axis=2)
    hits: np.ndarray = target[np.arange(len(target)), chosen] > 0
    return hits.mean(axis=1)


def nested_ridge(
    code: LinearCode,
    targets: SplitArrays,
    n_components: Sequence[int],
    alphas: Sequence[float] = ALPHAS,
    score: Score = variance_weighted_r2,
) -> list[RidgeProbe]:
    """A multi-output ridge probe on the first k features for every k of ``n_components``.

    One penalty serves all outputs of a rank: the one with the best validation score, the strongest of ties.

    Args:
        code: features of the three splits.
        targets: for each split the (n, t) outputs of the same images.
        n_components: ranks, in 1 … columns of the code.
        alphas: penalties, positive.
        score: :func:`variance_weighted_r2` for regression; :func:`indicator_accuracy` on ±1 indicators is
            scikit-learn's ``RidgeClassifier``.

    Raises:
        ValueError: a rank the code does not have, or a penalty that is not positive.
    """
    available = code.features["train"].shape[1]
    if not all(1 <= k <= available for k in n_components):
        raise ValueError(f"n_components={list(n_components)} are not all in 1–{available}")
    if not len(alphas) or min(alphas) <= 0:
        raise ValueError(f"alphas={list(alphas)} must be positive, at least one")
    # Strongest first: argmax takes the first of ties.
    penalties = np.sort(np.asarray(alphas, dtype=np.float64))[::-1]
    intercept = targets["train"].mean(axis=0)
    cross = code.features["train"].T @ (targets["train"] - intercept)

    def outputs(split: Split, coefficients: np.ndarray) -> np.ndarray:
        return code.features[split][:, : coefficients.shape[1]] @ coefficients + intercept

    def probe(k: int) -> RidgeProbe:
        coefficients = code.coefficients(cross[:k], penalties)
        best = int(np.argmax(score(targets["validation"], outputs("validation", coefficients))))
        (result,) = score(targets["test"], outputs("test", coefficients[[best]]))
        return RidgeProbe(k, float(result), float(penalties[best]), len(targets["train"]), len(targets["test"]))

    return [probe(int(k)) for k in n_components]


def ridge_probe(
    train_x: Float64[np.ndarray, "n_train k"],
    train_y: Float64[np.ndarray, "n_train t"],
    validation_x: Float64[np.ndarray, "n_validation k"],
    validation_y: Float64[np.ndarray, "n_validation t"],
    test_x: Float64[np.ndarray, "n_test k"],
    test_y: Float64[np.ndarray, "n_test t"],
    alphas: Sequence[float] = ALPHAS,
    score: Score = variance_weighted_r2,
) -> RidgeProbe:
    """:func:`nested_ridge` on all the columns of features given as arrays."""
    code = LinearCode({"train": train_x, "validation": validation_x, "test": test_x})
    targets: SplitArrays = {"train": train_y, "validation": validation_y, "test": test_y}
    return nested_ridge(code, targets, [train_x.shape[1]], alphas, score)[0]
