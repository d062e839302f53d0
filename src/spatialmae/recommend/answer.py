"""The answer in words, the same on the terminal and on the page; every number is computed from the advice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatialmae.recommend.advice import Advice, Calibration
from spatialmae.recommend.images import FolderImages
from spatialmae.recommend.rules import mean_interval

FEW_LEVELS = 32  # of 256: 12 bits in files of 16 come to 17


@dataclass(frozen=True)
class Answer:
    """Sentences.

    Attributes:
        headline: the settings, or that there is no recommendation.
        rests_on: the evidence and the rule.
        how_sure: calibration and agreement.
        costs: in tokens.
        images: what was read, and how.
        warning: what may be wrong with their values; empty if nothing is.
    """

    headline: str
    rests_on: str
    how_sure: str
    costs: str
    images: str
    warning: str

    @classmethod
    def of(cls, advice: Advice, images: FolderImages) -> Answer:
        """Put together."""
        return cls(
            _headline(advice), _rests_on(advice), _how_sure(advice), _costs(advice), _images(images), _warning(images)
        )


def _headline(advice: Advice) -> str:
    patch_size, mask_ratio = advice.setting
    if not advice.recommends:
        setting = f"patches of {patch_size} px with a masking ratio of {mask_ratio:g}"
        if advice.calibration is None:
            return f"No setting is recommended for these images. MAE's own, scaled to them: {setting}."
        return f"No rule is known to do better than MAE's own setting; scaled to these images: {setting}."
    others = [str(size) for size in advice.patch_sizes if size != patch_size]
    low, high = advice.mask_ratio_range
    ratios = f"masking ratio {mask_ratio:g}" + (f" ({low:g} to {high:g})" if low < high else "")
    sizes = f"{patch_size} px" + (f" (or {', '.join(others)} px)" if others else "")
    return f"Patches of {sizes}, {ratios}."


def _rests_on(advice: Advice) -> str:
    found = f"The correlation of two pixels {_falls(advice)}."
    if advice.calibration is not None and advice.recommends:
        return f"{found} The setting is the one at which {advice.calibration.rule.says}."
    return f"{found} Below is what the closed form of the linear MAE says of each setting; it picks none."


def _falls(advice: Advice) -> str:
    length = advice.correlations.length
    if np.isnan(length):
        return f"stays above 1/e at all distances within the images' {advice.grid.image_size} px"
    if np.isnan(advice.length_error):
        return (
            f"falls to 1/e at {length:.1f} px, with an error that cannot be estimated: a fifth of the images decides it"
        )
    return f"falls to 1/e at {length_says(advice)}"


def length_says(advice: Advice) -> str:
    """The correlation length with its error, where they are known; else that it is beyond the images."""
    length, error = advice.correlations.length, advice.length_error
    if np.isnan(length):
        return f"more than {advice.grid.image_size} px"
    return f"{length:.1f} px, error unknown" if np.isnan(error) else f"{length:.1f} ± {error:.1g} px"


def _how_sure(advice: Advice) -> str:
    measured = calibration_says(advice.calibration)
    if not advice.recommends:
        return measured
    share = f"{advice.agreement:.0%} of the picks agree on this setting"
    return f"{measured} With a fifth of the images, or a data set of the calibration, left out, {share}."


def calibration_says(calibration: Calibration | None) -> str:
    """What following a rule cost on data sets that it was not tuned on, beside settings that ask no images."""
    if calibration is None:
        return (
            "This version comes with no calibration: whether any rule on this evidence helps has not been measured, "
            "so that it gives none."
        )
    earned = "" if calibration.comparison.rule_is_better else "No rule has earned its place. "
    return f"{earned}{_measured(calibration)}"


def _measured(calibration: Calibration) -> str:
    gain, held_out = calibration.comparison, calibration.held_out
    if held_out.empty:
        return "In calibration, accuracy hardly depended on the setting."
    rho, low, high = calibration.rank_correlation
    lost, default, fixed, random = (
        _points(*mean_interval(held_out[column].to_numpy(np.float64)))
        for column in ("regret", "regret_default", "regret_fixed", "regret_random")
    )
    return (
        f"On {gain.n_sets} data sets that it was not tuned on, following the rule lost {lost} points of "
        f"linear-probe accuracy against the best setting, MAE's own setting {default}, the fixed setting that was "
        f"best on the other sets {fixed}, one at random {random} (means and 95 % t intervals over the data sets). "
        f"Gain over MAE's own: {_points(gain.mean, gain.ci_low, gain.ci_high)} points; rank correlation of the rule's "
        f"score with the accuracy {rho:.2f} [{low:.2f}, {high:.2f}]."
    )


def _points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]".replace("-", "−")


def _costs(advice: Advice) -> str:
    cost = advice.cost
    own = f"{cost['tokens']} patches an image, {cost['encoder_tokens']} tokens in the encoder with [CLS]"
    if not advice.recommends:
        return f"{own}."
    return f"{own}; MAE's own setting: {cost['default_tokens']} and {cost['default_encoder_tokens']}."


def _images(images: FolderImages) -> str:
    tiles = f" ({len(images.images)} tiles)" if images.resize == "tiles" else ""
    files = "file" if len(images.skipped) == 1 else "files"
    left_out = f", {len(images.skipped)} {files} left out" if images.skipped else ""
    kind = {1: "grey", 3: "colour"}.get(images.channels, f"{images.channels}-channel")
    return f"{images.n_files} {kind} images{tiles}{left_out}: {images.sizes_say}."


def _warning(images: FolderImages) -> str:
    levels = images.usual_levels
    if levels >= FEW_LEVELS:
        return ""
    return (
        f"Half of the images span at most {levels} of the 256 grey levels that they are read in. If their values have "
        "fewer bits than their type, such as 12 in files of 16, scale them to its whole range."
    )
