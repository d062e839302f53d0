"""Linear masked and denoising autoencoders as scikit-learn transformers, siblings of PCA."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral
from typing import Any, Literal, no_type_check

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from spatialmae.geometry import ImageShape, patch_labels, patch_members
from spatialmae.linear.closed_form import solve
from spatialmae.linear.moments import Moments
from spatialmae.linear.objective import Corruption

Masking = Literal["bernoulli", "fixed"]


class _LinearAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What linear AE, DAE and MAE share: everything but how the input is corrupted."""

    n_components: int | None
    center: bool

    @abstractmethod
    def _corruption(self, labels: Int64[np.ndarray, " d"]) -> Corruption: ...

    @abstractmethod
    def _patch_labels(self, n_features: int) -> Int64[np.ndarray, " d"]: ...

    def fit(self, X: Any, y: Any = None) -> _LinearAutoencoder:
        """Fit from samples.

        Args:
            X: (n_samples, n_features) real; images flattened in C order of their shape.
            y: ignored.

        Raises:
            ValueError: X or a parameter is not usable; the message names it.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        mean = X.mean(axis=0, dtype=np.float64) if self.center else np.zeros(X.shape[1])
        # Moments about the mean directly: subtracting the mean's square afterwards would cancel digits.
        return self._fit(Moments.from_batches([X - mean]).second_moment, mean, len(X))

    def fit_moments(self, second_moment: Any, mean: Any = None, n_samples: int | None = None) -> _LinearAutoencoder:
        """Fit from moments of data that need not fit in memory (see :class:`~spatialmae.linear.Moments`).

        Args:
            second_moment: (d, d), Σ xᵀx / n, not centred.
            mean: (d,); needed when ``center`` is true.
            n_samples: recorded as ``n_samples_`` when given.

        Raises:
            ValueError: ``second_moment`` is not square and symmetric, or the mean is missing or of another size.
        """
        S = check_array(second_moment, dtype=np.float64, input_name="second_moment")
        if S.shape[0] != S.shape[1] or not np.allclose(S, S.T, rtol=1e-8, atol=1e-12 * np.abs(S).max()):
            raise ValueError(f"second_moment of shape {S.shape} must be square and symmetric")
        if self.center and mean is None:
            raise ValueError("center=True needs the mean: pass mean, or set center=False")
        centre = np.asarray(mean, dtype=np.float64) if self.center else np.zeros(len(S))
        if centre.shape != (len(S),):
            raise ValueError(f"mean has shape {centre.shape}, not ({len(S)},)")
        self.n_features_in_ = len(S)
        return self._fit(S - np.outer(centre, centre), centre, n_samples)

    def _fit(
        self, S: Float64[np.ndarray, "d d"], mean: Float64[np.ndarray, " d"], n_samples: int | None
    ) -> _LinearAutoencoder:
        labels = self._patch_labels(len(S))
        corruption = self._corruption(labels)
        solution = solve((S + S.T) / 2, labels, corruption, self._rank(len(S)))
        self.mean_ = mean
        self.encoder_, self.decoder_ = solution.encoder, solution.decoder
        self.eigenvalues_, self.loss_ = solution.eigenvalues, solution.loss
        if n_samples is not None:
            self.n_samples_ = n_samples
        return self

    def _rank(self, n_features: int) -> int:
        if self.n_components is None:
            return n_features
        if not isinstance(self.n_components, Integral) or not 1 <= self.n_components <= n_features:
            raise ValueError(
                f"n_components={self.n_components!r} must be an integer from 1 to n_features={n_features}, or None"
            )
        return int(self.n_components)

    @property
    def _n_features_out(self) -> int:
        return self.encoder_.shape[1]

    def transform(self, X: Any) -> np.ndarray:
        """Codes (n_samples, k) of samples of which nothing is hidden: (X − mean) A."""
        X = self._check(X)
        return ((X - self.mean_) @ self.encoder_).astype(X.dtype, copy=False)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Samples (n_samples, d) that codes (n_samples, k) decode to: Z B + mean."""
        check_is_fitted(self)
        return check_array(Z, dtype=[np.float64, np.float32]) @ self.decoder_ + self.mean_

    def reconstruct(self, X: Any, mask: Any = None) -> np.ndarray:
        """Reconstruction of X with patches hidden.

        Args:
            X: (n_samples, d).
            mask: (n_samples, n_patches) boolean, true = hidden, patches in row-major order; a hidden patch
                enters as the mean. None hides nothing.

        Returns:
            (n_samples, d): (R∘(X − mean)) A B + mean.

        Raises:
            ValueError: the mask has another shape.
        """
        X = self._check(X)
        centred = X - self.mean_
        if mask is not None:
            labels = self._patch_labels(X.shape[1])
            hidden = self._check_mask(mask, (len(X), int(labels[-1]) + 1))
            centred = np.where(hidden[:, labels], 0.0, centred)
        return (centred @ self.encoder_ @ self.decoder_ + self.mean_).astype(X.dtype, copy=False)

    @staticmethod
    def _check_mask(mask: Any, shape: tuple[int, int]) -> Bool[np.ndarray, "n patches"]:
        hidden = np.asarray(mask, dtype=bool)
        if hidden.shape != shape:
            raise ValueError(f"mask has shape {hidden.shape}, not (n_samples, n_patches) = {shape}")
        return hidden

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the expected objective per sample on X (2), the expectation over masks or noise taken exactly."""
        X = self._check(X).astype(np.float64, copy=False) - self.mean_
        labels = self._patch_labels(X.shape[1])
        corruption = self._corruption(labels)
        codes = X @ self.encoder_
        linear = np.sum(codes * (X @ self.decoder_.T)) / len(X)
        # The decoder's rows are orthonormal, so a code's squared norm is that of what it decodes to.
        quadratic = corruption.between * np.sum(codes**2) / len(X)
        quadratic += corruption.noise_variance * np.sum(self.encoder_**2)
        if corruption.within:
            of_patches = (X[:, rows] @ self.encoder_[rows] for rows in patch_members(labels))
            quadratic += corruption.within * sum(np.sum(part**2) for part in of_patches) / len(X)
        return float(-(np.sum(X**2) / len(X) - 2 * corruption.gain * linear + quadratic))

    def _check(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class LinearMAE(_LinearAutoencoder):
    """Linear masked autoencoder in closed form: the masked sibling of :class:`sklearn.decomposition.PCA`.

    Minimises over all W = A B of rank k the expected squared error, over *all* features, of reconstructing x
    from x with random patches set to the mean (paper A, Theorem 1; docs/theory.md, eqs. 1–6). Where AE (PCA)
    keeps the directions of largest variance, this keeps what is redundant across patches. ``mask_ratio=0``
    is PCA. Only the product A B is unique; decoder rows are made orthonormal.

    Args:
        n_components: k, the rank; None keeps all features.
        mask_ratio: m in [0, 1), probability (or fraction) of hidden patches.
        patch_size: side of a square patch in pixels; length of a patch where ``image_shape`` is None.
        image_shape: (h, w) or (h, w, c) of an image flattened in C order; a patch holds all its channels.
            None: a 1-D signal, whose last patch may be shorter.
        masking: "bernoulli" hides each patch independently; "fixed" hides a fixed count, as MAEs in practice do.
        center: subtract the mean first.

    Attributes:
        mean_: float64 (d,), zeros where ``center`` is false.
        encoder_: A, float64 (d, k).
        decoder_: B, float64 (k, d), orthonormal rows by falling eigenvalue; the entry of largest magnitude in
            each row is positive.
        eigenvalues_: λ, float64 (k,), of S V⁻¹ S, with S the (centred) second moments divided by n.
        loss_: expected objective per sample at the optimum, tr S − (1−m) Σ λ; with fixed counts q² stands for
            1−m, q the visible fraction.
        n_features_in_: d.
        n_samples_: n, where known.

    Moments of any rank are handled: directions in which a patch never varies are left out by a pseudo-inverse
    within each patch, and eigenvalues beyond the rank are zero (their decoder rows complete the basis).

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> from spatialmae.linear import LinearMAE
        >>> X = load_digits().data / 16
        >>> mae = LinearMAE(16, mask_ratio=0.75, patch_size=2, image_shape=(8, 8)).fit(X)
        >>> mae.transform(X).shape
        (1797, 16)
    """

    mask_ratio: float
    patch_size: int
    image_shape: ImageShape | None
    masking: Masking

    @no_type_check  # scikit-learn: __init__ checks nothing, fit does
    def __init__(
        self,
        n_components: int | None = None,
        *,
        mask_ratio: float = 0.75,
        patch_size: int = 1,
        image_shape: ImageShape | None = None,
        masking: Masking = "bernoulli",
        center: bool = True,
    ) -> None:
        self.n_components = n_components
        self.mask_ratio = mask_ratio
        self.patch_size = patch_size
        self.image_shape = image_shape
        self.masking = masking
        self.center = center

    def _corruption(self, labels: Int64[np.ndarray, " d"]) -> Corruption:
        if self.masking == "bernoulli":
            return Corruption.bernoulli(float(self.mask_ratio))
        if self.masking == "fixed":
            return Corruption.fixed_count(float(self.mask_ratio), int(labels[-1]) + 1)
        raise ValueError(f"masking={self.masking!r} must be 'bernoulli' or 'fixed'")

    def _patch_labels(self, n_features: int) -> Int64[np.ndarray, " d"]:
        return patch_labels(n_features, self.patch_size, self.image_shape)


class LinearDAE(_LinearAutoencoder):
    """Linear denoising autoencoder in closed form: PCA whose codes are shrunk by μ / (μ + σ²).

    Its features span what PCA's span (docs/theory.md, eq. 7); only their scale differs.

    Args:
        n_components: k, the rank; None keeps all features.
        noise_std: σ ≥ 0, standard deviation of the added white noise, in units of the features; 0 is PCA.
        center: subtract the mean first.

    Attributes: as of :class:`LinearMAE`.
    """

    noise_std: float

    @no_type_check  # scikit-learn: __init__ checks nothing, fit does
    def __init__(self, n_components: int | None = None, *, noise_std: float = 0.2, center: bool = True) -> None:
        self.n_components = n_components
        self.noise_std = noise_std
        self.center = center

    def _corruption(self, labels: Int64[np.ndarray, " d"]) -> Corruption:
        return Corruption.gaussian(float(self.noise_std))

    def _patch_labels(self, n_features: int) -> Int64[np.ndarray, " d"]:
        # Noise knows no patches: every feature is its own, which only `reconstruct` ever looks at.
        return np.arange(n_features, dtype=np.int64)
