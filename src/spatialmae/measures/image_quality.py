"""Measure ``reconstruction``: how well trained models reconstruct test images of which nothing is masked (claim B4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialmae.evaluation.measure import Measure, MeasuredModel, Row, Rows

if TYPE_CHECKING:
    from spatialmae.evaluation.shared import Shared


def rows(model: MeasuredModel, settings: Row, shared: Shared) -> Rows:
    """A row of ``image_quality``."""
    from spatialmae.analysis.image_quality import quality_row

    images = shared.data.images[shared.test_images(settings["n_test"], model.seed)]
    return {"image_quality": [quality_row(model.load(), images)]}


MEASURE = Measure(
    "SSIM, PSNR, MSE and FSIM of reconstructed unmasked test images (B4)",
    tables=("image_quality",),
    rows=rows,
    reads=("n_test",),
    of_pixels=True,
)
