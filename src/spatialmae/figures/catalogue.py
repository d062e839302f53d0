"""Every figure: the notebook that draws it, the tables it is drawn from, and its caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spatialmae.config import Config
from spatialmae.layout import datasets_with


@dataclass(frozen=True)
class FigureKind:
    """A figure, and what it is drawn from.

    Attributes:
        name: stem of its files; claims name their figure by it.
        notebook: the notebook that draws it.
        table: the table it is drawn from; None: the claims.
        caption: what was asked, what is shown, how to read it; `{dataset}` is filled in.
        per_dataset: drawn once for each data set (training stage, evaluation) that has the table, or once for all.
        section: of the report.
        compares: drawn for evaluations alone whose models differ in more than the seed.
        along: drawn for evaluations alone of which some models differ in this setting alone.
        beside: another table that an evaluation must have for it.
        papers: the papers whose claims it bears on.
    """

    name: str
    notebook: str
    table: str | None
    caption: str
    per_dataset: bool = True
    section: str = "Linear MAE, and the images"
    compares: bool = False
    along: str | None = None
    beside: str | None = None
    papers: Literal["A", "B", "both"] = "A"

    def __post_init__(self) -> None:
        if self.per_dataset and self.table is None:
            raise ValueError(f"{self.name}: drawn for each data set that has a table, it needs one")


@dataclass(frozen=True)
class DrawnFigure:
    """One figure of a configuration; files are ``<stem>.svg`` and ``<stem>.png``."""

    kind: FigureKind
    dataset: str | None

    @property
    def stem(self) -> str:
        """Name of its files without suffix."""
        return self.kind.name if self.dataset is None else f"{self.kind.name}_{self.dataset}"

    @property
    def caption(self) -> str:
        """Caption with the data set's name."""
        return self.kind.caption.format(dataset=self.dataset)


_UNITS = "Points are jackknife pseudo-values of groups of images, bars their mean and two-sided 95 % t interval."
_SEEDS = "Points are training seeds, bars their mean and two-sided 95 % t interval."
_ANALYSES = "Non-linear MAE: analyses"
_HIERARCHY = "Latent hierarchies: theory"
_IMAGES = "Latent hierarchies: experiments"
_RECOMMENDER = "Recommender"

CATALOGUE = (
    FigureKind(
        "claims",
        "claims",
        None,
        "Verdicts of this configuration. Estimates in units of the smallest effect of interest, with their intervals; "
        "fidelity in brackets. The rules were fixed before the runs.",
        per_dataset=False,
        section="All verdicts",
        papers="both",
    ),
    FigureKind(
        "theory",
        "sweep",
        "theory",
        "Is the closed form right? Its relative distance from gradient descent, from PCA at ratio 0 and from random "
        "masks, each beside a negative control that must fail ({dataset}; claims A1).",
    ),
    FigureKind(
        "reach_radii",
        "reach",
        "reach",
        "Does influence reach farther with a higher masking ratio? Radii of |J| and J² against the ratio, by patch "
        f"size; the dotted line is the ceiling that the image's size sets ({{dataset}}; claims A5, A6). {_UNITS}",
    ),
    FigureKind(
        "reach_sampling",
        "reach",
        "reach_lags",
        "Is the reach one of the images, or of noise? Rms radius of J² against the ratio, from covariances by lag, "
        "nearly free of noise, and from Gaussian images of that covariance, as many for each of their numbers as there "
        f"are images ({{dataset}}; claims A5, A6). {_UNITS} For Gaussian images points are draws.",
    ),
    FigureKind(
        "reach_decay",
        "reach",
        "jacobian",
        "How does influence decay with distance? Mean |J| over pixel pairs, with exponential fits over half the "
        f"image's side ({{dataset}}; claims A4). {_UNITS}",
    ),
    FigureKind(
        "reach_spread",
        "reach",
        "reach",
        "What does a larger patch do? Spatial entropy, and the share of influence from outside the output's patch, "
        f"with their ceilings ({{dataset}}; claims A6). {_UNITS}",
    ),
    FigureKind(
        "reach_rank",
        "reach",
        "reach",
        f"Radii of influence against the rank k ({{dataset}}; how far the choice of k matters). {_UNITS}",
    ),
    FigureKind(
        "redundancy",
        "features",
        "features",
        "What do features keep? Variance against redundancy across patches, the line following the masking ratio "
        f"({{dataset}}; claims A2). {_UNITS}",
    ),
    FigureKind(
        "gallery",
        "features",
        "features",
        "Leading encoder columns and decoder rows from all training images ({dataset}); each tile on its own "
        "scale, red and blue of opposite sign.",
    ),
    FigureKind(
        "edge_ratio_1d",
        "ising",
        "ising",
        "On Ising chains, does the encoder's weight sit at patch boundaries? Edge/centre energy against the masking "
        "ratio, 0 being the AE (claims A3). Points are independent simulations.",
    ),
    FigureKind(
        "energy_profile_1d", "ising", "ising", "Energy of the weights by position within the patch, Ising chains (A3)."
    ),
    FigureKind("edge_ratio_2d", "ising", "ising", "The same ratio on a two-dimensional Ising lattice (no claim)."),
    FigureKind(
        "energy_profile_2d", "ising", "ising", "Energy of the weights by distance from the patch's border, lattice."
    ),
    FigureKind(
        "probe_gabor",
        "probes",
        "probe_gabor",
        f"R² of predicting Gabor responses from k features, by width of the filter ({{dataset}}; claims A7). {_UNITS}",
    ),
    FigureKind(
        "probe_depth",
        "probes",
        "probe_depth",
        f"R² of predicting depth from k features ({{dataset}}; claims A8). {_UNITS}",
    ),
    FigureKind(
        "probe_class",
        "probes",
        "probe_class",
        f"Accuracy of a ridge classifier on k features ({{dataset}}; no claim of the papers). {_UNITS}",
        papers="both",
    ),
    FigureKind(
        "sweep",
        "sweep",
        "sweep",
        f"Expected loss of the best linear MAE, as a fraction of the variance ({{dataset}}). {_UNITS}",
    ),
    FigureKind(
        "correlation",
        "statistics",
        "statistics",
        f"Correlation between pixels against their distance; the correlation length is where it crosses 1/e. {_UNITS}",
        per_dataset=False,
        papers="both",
    ),
    FigureKind(
        "power_spectrum",
        "statistics",
        "statistics",
        f"Radially averaged power spectra with their exponents. {_UNITS}",
        per_dataset=False,
        papers="both",
    ),
    FigureKind(
        "correlation_length",
        "statistics",
        "statistics_summary",
        f"Correlation lengths of the data sets. {_UNITS}",
        per_dataset=False,
        papers="both",
    ),
    FigureKind(
        "theorem",
        "hierarchy",
        "theorem",
        "Is the smallest set of shared latents right? Share of random graphs and masks on which Theorem 1's set "
        "differs from enumeration with d-separation, and on which the masked part's own noise is not independent of "
        "the rest; beside each a control that must fail (claims B1). Points are seeds, each with graphs of its own.",
        section=_HIERARCHY,
        papers="B",
    ),
    FigureKind(
        "levels",
        "hierarchy",
        "levels",
        "What moves the level of the shared latents? Mean and largest height of c above the pixels against the masking "
        "ratio, by patch size, on a binary tree over a line and a quad-tree over an image. The law of c is the same at "
        "ratios r and 1 − r: the theorem implies no peak at .75. A patch is a subtree, so that doubling its side adds "
        "one level by construction (claims B2). Points are seeds, bars their mean and two-sided 95 % t interval.",
        section=_HIERARCHY,
        papers="B",
    ),
    FigureKind(
        "identifiability",
        "hierarchy",
        "identifiability",
        "What does masked prediction identify of known latents? R² on held-out samples of non-linear regressions: of c "
        "and of either side's own noises from a representation, and of the representation from c. Predictors of one "
        "mask have as many coordinates as c; one of random masks needs room for all latents. From what is visible both "
        "c and its own noises could be had (claims B3). Points are seeds, means over graphs and masks, bars their mean "
        "and two-sided 95 % t interval.",
        section=_HIERARCHY,
        papers="B",
    ),
    FigureKind(
        "loss_curves",
        "training",
        "training",
        "Has training converged, and does it overfit? Loss against images seen, lines training, points validation "
        "({dataset}). Thin lines are seeds, bars two-sided 95 % t intervals over them, the dotted line is what the "
        "mean image would give. Losses of different masks or patch sizes are of different tasks.",
        section="Non-linear MAE: training",
        papers="both",
    ),
    FigureKind(
        "reconstructions",
        "training",
        "runs",
        "What do the models make of masked images? Validation images, as the model sees them and as it completes them; "
        "visible pixels are the image's own where the loss is on hidden ones ({dataset}).",
        section="Non-linear MAE: training",
        papers="both",
    ),
    FigureKind(
        "nonlinear_reach",
        "nonlinear",
        "model_reach",
        "How far do trained models reach? Rms radius of J² and spatial entropy against what the models differ in, the "
        "masking ratio that they were trained at, say; all models of a column see the same masks, since masks alone "
        "widen reach. Dashes: the best linear predictor under these masks; dots: networks before training "
        f"({{dataset}}; claims A5.6, A5.7). {_SEEDS}",
        section=_ANALYSES,
    ),
    FigureKind(
        "nonlinear_profile",
        "nonlinear",
        "model_profile",
        "How does influence decay with distance in trained models? Mean |J| over pairs of pixels under masks of one "
        "ratio, hidden inputs counting as 0, beside the best linear predictor ({dataset}; no claim). Points are "
        "training seeds, bands two-sided 95 % t intervals.",
        section=_ANALYSES,
    ),
    FigureKind(
        "agreement",
        "nonlinear",
        "model_reach",
        "Do theory and training agree? Reach of each model at the ratio it was trained at, against that of the best "
        "linear predictor under the same masks; on the line both are equal. Masks that hide more push influence "
        "outwards in any network, so untrained ones (crosses) are the control: a rank correlation no higher than "
        "theirs can be the masks' doing ({dataset}; no claim).",
        section=_ANALYSES,
    ),
    FigureKind(
        "basis",
        "nonlinear",
        "model_basis",
        "Does the basis, the Jacobian, adapt to the image? Its change from image to image as a share of its squared "
        "size (0 in a linear model); influence within objects against that across their borders, where objects are "
        f"known; and the error of the first-order expansion for small changes ({{dataset}}; claims A9). {_SEEDS}",
        section=_ANALYSES,
    ),
    FigureKind(
        "basis_pictures",
        "nonlinear",
        "model_basis",
        "What does the basis look like, and does it change with the image? A row for each test image, all under one "
        "mask. |J| is how much each visible pixel moves the prediction of one hidden pixel (circle), on one scale for "
        "all rows; input directions are the changes of the image that move the hidden central pixels most. A linear "
        "model's are the same for every image, as the last row's, whose weights are noisy where images are few. One "
        "model alone: the figure before it measures the change ({dataset}; claims A9).",
        section=_ANALYSES,
    ),
    FigureKind(
        "basis_training",
        "nonlinear",
        "reach_in_training",
        "Does the basis grow from local to diffuse? Rms radius of J² after each epoch at which weights were kept. "
        "Untrained networks, at the left, attend everywhere and are no basis yet "
        f"({{dataset}}; claim A10). {_SEEDS}",
        section=_ANALYSES,
    ),
    FigureKind(
        "beyond_second_order",
        "nonlinear",
        "second_order",
        "Do models use more than second moments? Above 0 they reconstruct better than the best linear prediction. The "
        "control was trained and evaluated on Gaussian images of the same moments, where nothing beats it; grey "
        "crosses are against a linear predictor fitted with a ridge, on the same test images "
        f"({{dataset}}; claims A11). {_SEEDS}",
        section=_ANALYSES,
    ),
    FigureKind(
        "model_probe",
        "nonlinear",
        "linear_probe",
        "What do frozen encoders know of the classes? Accuracy of a linear probe and of k nearest neighbours against "
        f"what the models differ in, chance dotted ({{dataset}}; claims A12, A13, B7). {_SEEDS}",
        section=_ANALYSES,
        papers="both",
    ),
    FigureKind(
        "convergence",
        "nonlinear",
        "linear_probe",
        "Do small patches train slower? Epochs until the validation loss had come nine tenths of its way from the mean "
        f"image's loss to its last value, against the patch size ({{dataset}}; claims A13). {_SEEDS}",
        section=_ANALYSES,
        along="patch_size",
    ),
    FigureKind(
        "proxy",
        "nonlinear",
        "linear_probe",
        "Does a model that reconstructs better know more of the classes? Accuracy of the linear probe against the "
        "error per hidden feature on test images, under masks that all models share; a dot is a model, of one seed. "
        "Within configurations, each one's means are taken off before ranks are correlated ({dataset}; claims A15).",
        section=_ANALYSES,
        compares=True,
    ),
    FigureKind(
        "fine_tuning",
        "nonlinear",
        "fine_tuning",
        "How much of the encoder must be fine-tuned? Accuracy on test images, with time and memory of a step where the "
        "number of trained blocks varies, else against what the models differ in; grey: the same encoder trained from "
        f"scratch. Learning rates were chosen on validation images ({{dataset}}; claims A12, A14). {_SEEDS}",
        section=_ANALYSES,
    ),
    FigureKind(
        "reconstruction",
        "images",
        "image_quality",
        "What do models make of images of which nothing is masked? SSIM, FSIM, PSNR and squared error on test images "
        "against what the models differ in. A loss on hidden patches never trains the output at visible ones; FSIM's "
        f"wavelengths exceed small images, so compare orders only ({{dataset}}; claims B4). {_SEEDS}",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "attention",
        "images",
        "attention",
        "Does attention keep to the object? Attention of the last block, averaged over heads, in images of leaves with "
        "known objects. Log-ratio: an image's own map against the mean map of other images, which knows positions "
        "alone, so that 0 is no more than the object's usual place; attention that is spread evenly has the dotted "
        f"distance and entropy ({{dataset}}; claims B5). {_SEEDS}",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "attention_pictures",
        "images",
        "attention",
        "Where do encoders look? Attention of [CLS] and of the object's tokens over the patches of a few images with a "
        "known object (outlined), last block, models of the first seed ({dataset}; claims B5, whose verdicts go by the "
        "numbers in the figure before).",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "attention_blocks",
        "images",
        "attention",
        "Where along the encoder does attention keep to the object? The same log-ratio, and the distance of attention, "
        f"by block ({{dataset}}; no claim). {_SEEDS}",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "embedding",
        "images",
        "tsne",
        "Do classes separate in the embedding, to look at? t-SNE of frozen features of test images, coloured by class, "
        "models of the first seed. It shows clusters or none as its perplexity has it; the numbers are in the figure "
        "after it ({dataset}; claims B6).",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "separability",
        "images",
        "separability",
        "Do classes separate in the embedding, in numbers? Accuracy of k nearest neighbours, chance dotted, and "
        f"silhouette of the classes in frozen features of test images ({{dataset}}; claims B6). {_SEEDS}",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "probe_shift",
        "images",
        "corruptions",
        "Does a probe of clean images hold on corrupted ones? Accuracy against severity, averaged over corruptions, "
        "and, averaged over severities, against what the models differ in, by kind of corruption "
        f"({{dataset}}; claims B8, whose test sets are out of reach). {_SEEDS}",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "shape_bias",
        "images",
        "shape_bias",
        "Do features go by shape or by texture? Of a probe's decisions for either of two conflicting cues, the share "
        "for the shape's. A probe that guesses comes near .5 as well, so how well it sees at all stands beside "
        f"({{dataset}}; claims B9, B11). {_SEEDS}",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "dense_transfer",
        "images",
        "dense",
        "Do features serve dense prediction? Segmentation and depth of leaves by a linear head on patch tokens, of "
        "frozen and of fine-tuned encoders; dotted: the best answer that is the same for all images "
        f"({{dataset}}; claims B10, COCO is out of reach). {_SEEDS}",
        section=_IMAGES,
        papers="B",
    ),
    FigureKind(
        "boundary_loss",
        "images",
        "linear_probe",
        "Does it help to leave the mask's boundary out of the loss, as paper B suggests? Accuracy of a linear probe, "
        "and shape bias where it was measured, against the width left out; the control leaves out as many hidden "
        f"pixels at random ({{dataset}}; claims B11). {_SEEDS}",
        section=_IMAGES,
        along="loss_margin",
        papers="B",
    ),
    FigureKind(
        "reach_and_level",
        "images",
        "model_reach",
        "Do reach and level go together? Paper A's reach, under masks that all models share, beside what stands for "
        "paper B's level of the latents in the same models, and the level itself on trees in theory, all against the "
        "ratio that models were trained at. Below: whether each turns back at the highest ratio "
        f"({{dataset}}; no claim). {_SEEDS}",
        section=_IMAGES,
        along="mask_ratio",
        beside="linear_probe",
        papers="both",
    ),
    FigureKind(
        "calibration_grids",
        "calibration",
        "calibration",
        "Which setting does a linear probe prefer on each data set? Accuracy on test images over patch size and "
        "masking ratio; framed: what the recommender's rule picked, chosen on the other data sets, and MAE's own "
        "setting (no claim).",
        per_dataset=False,
        section=_RECOMMENDER,
        papers="both",
    ),
    FigureKind(
        "calibration_regrets",
        "calibration",
        "calibration",
        "Is the recommender worth following? Accuracy lost against the best setting of each grid, by the rule, by "
        "MAE's own setting, by the fixed one that was best on the other data sets, and at random; right: rank "
        "correlation of the rule's score with accuracy. Points are data sets, each left out once, bars their mean and "
        "two-sided 95 % t interval (no claim).",
        per_dataset=False,
        section=_RECOMMENDER,
        papers="both",
    ),
)

NOTEBOOKS = tuple(dict.fromkeys(kind.notebook for kind in CATALOGUE))


def notebook_subjects(config: Config, notebook: str) -> dict[str, list[str]]:
    """The parameter of a notebook that names what its tables are of: data sets, training stages or evaluations."""
    if notebook == "training":
        return {"stages": list(config.training)}
    if notebook in ("nonlinear", "images"):
        return {"evaluations": list(config.evaluations)}
    if notebook == "calibration":
        return {"datasets": datasets_with(config, "calibration")}
    if notebook in ("hierarchy", "ising"):
        return {"datasets": [notebook]}
    return {"datasets": list(config.datasets)}


# Analyses of images that write tables of other names.


def drawn_figures(config: Config, notebook: str | None = None) -> list[DrawnFigure]:
    """The figures that a configuration gets, of one notebook or of all, in the report's order."""
    figures = []
    for kind in CATALOGUE:
        if notebook in (None, kind.notebook):
            datasets: list[str] = [] if kind.table is None else datasets_with(config, kind.table)
            if kind.compares:
                datasets = [name for name in datasets if config.varying_settings(name)]
            if kind.along:
                datasets = [name for name in datasets if _have_models_along(config, name, kind.along)]
            if kind.beside:
                datasets = [name for name in datasets if name in datasets_with(config, kind.beside)]
            if kind.per_dataset:
                figures += [DrawnFigure(kind, dataset) for dataset in datasets]
            elif datasets or kind.table is None:
                figures.append(DrawnFigure(kind, None))
    return figures


_FOLLOWING = ("name", "seed", "realised_mask_ratio")  # from other settings, or no setting of the model


def _have_models_along(config: Config, evaluation: str, setting: str) -> bool:
    """Whether some models differ in a setting alone, see :func:`~spatialmae.figures.design.models_along`."""
    own = [setting, *(["loss_margin_control"] if setting == "loss_margin" else [])]
    runs, kinds = config.evaluation_runs(evaluation), dict[str, set]()
    follows_patch = all(run.model.mask_unit_px == run.model.patch_size for run in runs)
    following = {*_FOLLOWING, *(["mask_unit"] if follows_patch else [])}
    for run in runs:
        settings = run.settings()
        kind = tuple(settings.pop(name) for name in own)
        same = str({name: value for name, value in settings.items() if name not in following})
        kinds.setdefault(same, set()).add(kind)
    return any(len(found) > 1 for found in kinds.values())
