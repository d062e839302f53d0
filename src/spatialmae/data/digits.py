"""The 1,797 real 8×8 digits that scikit-learn carries."""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.datasets import load_digits

from spatialmae.data.dataset import ImageData, stratified_splits


def digits(*, seed: int) -> ImageData:
    """Grey 8×8 digits, uint8 (1797, 8, 8, 1), with target ``label`` (int64, 0–9).

    scikit-learn's values v = 0 … 16 become ⌊255 v / 16 + ½⌋, so 0 stays 0 and 16 is 255. Three pixels are
    constant over all images. Splits are 60 % train, 20 % validation, 20 % test, stratified by label and
    drawn by ``seed``; the images and their order do not depend on it.
    """
    values, label = load_digits(return_X_y=True)
    images = (values.astype(np.int64) * 255 + 8) // 16
    return ImageData(
        name="digits",
        images=images.astype(np.uint8).reshape(-1, 8, 8, 1),
        splits=stratified_splits(label.astype(np.int64), validation=0.2, test=0.2, seed=seed),
        targets={"label": label.astype(np.int64)},
        class_names={"label": tuple("0123456789")},
        provenance={"kind": "digits", "scikit-learn": sklearn.__version__, "seed": seed},
    )
