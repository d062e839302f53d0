"""What the models of an evaluation differ in, and so what a figure draws them along.

Models of one configuration differ in their seed alone. Configurations that differ

- in one number are drawn along it;
- as a cross, each from one of them (the centre) in a single number, are drawn along each of these numbers in turn, with
  those that share all other settings with the centre;
- as a grid are drawn in lines along one number, the masking ratio if it can be: lines of at least two on average;
- in any other way stand side by side under short names.

Where losses leave out a margin, or as many random pixels as its control, both are lines along the margin, and models
without one belong to both.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from spatialmae.analysis.settings import MARGIN_CONTROL, setting_label, settings_label, varied
from spatialmae.figures import theme

ALONG = "along"
"""The column that :meth:`Comparison.placed` adds: where a model stands on the horizontal axis."""

_LABELS = {
    "mask_ratio": "training ratio m",
    "patch_size": "patch size (px)",
    "mask_unit": "mask unit (px)",
    "encoder_depth": "encoder depth (blocks)",
    "decoder_depth": "decoder depth (blocks)",
    "noise_std": "noise σ (channel deviations)",
    "loss_margin": "margin left out of the loss (px)",
}
# Settings that decide the network before training: models that differ in others alone start as the same one.
_NETWORK = {
    *("patch_size", "encoder_dim", "encoder_depth", "encoder_heads", "decoder_dim", "decoder_depth", "decoder_heads"),
    *("mlp_ratio", "bottleneck", "layer_norm_eps"),
}
_COLORMAPS = ("flare_r", "copper", "crest_r")  # of the settings of a cross, in turn; the ratio has its own
_MARGIN = 0.08  # of the axis at either end
_BASELINE = "baseline"  # the centre of a cross


@dataclass(frozen=True)
class Line:
    """Rows of models with one style; ``label`` is empty where nothing tells them from others."""

    label: str
    style: theme.Style
    rows: pd.DataFrame

    def of(self, predictor: str) -> pd.DataFrame:
        """Rows of what was trained, or not."""
        return self.rows[self.rows["predictor"] == predictor]


@dataclass(frozen=True)
class Comparison:
    """Models along one horizontal axis.

    Attributes:
        setting: the number that varies along it; None: configurations side by side.
        names: what stands at each place of the axis, rising.
        styles: of the same places, for figures in which another quantity takes the axis.
        apart: the settings that tell its lines apart.
        held: of a cross, the centre's value of each other setting that varies.
        places: side by side, the settings of each configuration with its place in the column ``ALONG``.
    """

    setting: str | None
    names: dict[float, str]
    styles: dict[float, theme.Style]
    apart: list[str] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=dict)
    places: pd.DataFrame | None = None

    @property
    def label(self) -> str:
        """Label of the axis."""
        return "model" if self.setting is None else _LABELS.get(self.setting, self.setting.replace("_", " "))

    @property
    def subject(self) -> str:
        """What a line shows that needs no telling apart."""
        return "trained model" if self.setting is None else "trained MAE"

    @property
    def linestyle(self) -> str:
        """Between points; there is nothing between configurations that stand side by side."""
        return "" if self.setting is None else "-"

    def placed(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table in this comparison, with their place in the column ``ALONG``.

        A setting that is missing, as the decoder's of an encoder trained from scratch, excludes no row; nor does the
        masking of an untrained network, which the table has once.
        """
        rows = table[table["name"].notna()]  # the linear predictor is of no run
        for name, value in self.held.items():
            fits = rows[name].isna() | (rows[name] == value)
            if "predictor" in rows and name not in _NETWORK:
                fits |= rows["predictor"] == "untrained"
            rows = rows[fits]
        rows = _in_both_lines(rows, self.setting, self.apart)
        return rows.assign(**{ALONG: rows[self.setting]}) if self.setting else rows.merge(self.places, how="left")

    def lines(self, table: pd.DataFrame) -> list[Line]:
        """The models of a table in this comparison, see :meth:`placed`."""
        rows = self.placed(table)
        if not self.apart:
            return [Line("", theme.Style(theme.PALETTE[0], linestyle=self.linestyle), rows)]
        parts = {settings_label(self.apart, values): part for values, part in rows.groupby(self.apart, dropna=False)}
        if self.apart == ["patch_size"]:
            styles = list(theme.sequence_styles(range(len(parts)), "flare_r").values())
        else:
            styles = list(theme.category_styles(list(parts)).values())
        return [Line(label, style, part) for style, (label, part) in zip(styles, parts.items(), strict=True)]

    def points(self, line: Line) -> list[Line]:
        """The rows of a line by their place on the axis, each place with its style and name."""
        return [Line(self.names[place], self.styles[place], part) for place, part in line.rows.groupby(ALONG)]

    def set_axis(self, axes: Axes) -> None:
        """The same horizontal axis in every panel, with ticks where models are."""
        if self.setting == "mask_ratio":  # one ratio alone would be shown to many digits
            axes.set(xlim=(-0.04, 1.04), xticks=(0, 0.5, 1))
            axes.set_xticks((0.25, 0.75), minor=True)
            return
        low, high = min(self.names), max(self.names)
        if self.setting is None:
            axes.set_xticks(list(self.names), [name.replace(", ", ",\n") for name in self.names.values()])
            axes.set_xlim(low - 0.5, high + 0.5)
        elif low == high:
            theme.plain_ticks(axes.xaxis, self.names)
            axes.set_xlim(low - 0.5, high + 0.5)
        elif low > 0:
            theme.log2_axis(axes.xaxis, self.names)
            axes.set_xlim(low * (low / high) ** _MARGIN, high * (high / low) ** _MARGIN)
        else:
            theme.plain_ticks(axes.xaxis, self.names)
            axes.set_xlim(low - _MARGIN * (high - low), high + _MARGIN * (high - low))


def compare(table: pd.DataFrame) -> list[Comparison]:
    """The comparisons that a table of models allows: one for each setting of a cross, else one.

    Args:
        table: name, seed and every setting; rows of no run have no name.
    """
    names, models = _configurations(table)
    has_control = {"loss_margin", MARGIN_CONTROL} <= set(names)
    numbers = [name for name in names if not (has_control and name == MARGIN_CONTROL)]
    centre = _centre(models, numbers)
    if centre is not None:
        return [
            _along(
                name,
                models,
                colormap,
                held={other: centre[other] for other in numbers if other != name},
                apart=[MARGIN_CONTROL] if has_control and name == "loss_margin" else [],
            )
            for name, colormap in zip(numbers, itertools.cycle(_COLORMAPS))
        ]
    for name in sorted(names, key=lambda name: name != "mask_ratio"):
        apart = [other for other in names if other != name]
        rows = _in_both_lines(models, name, apart)
        if _is_number(models[name]) and 2 * len(rows[apart].drop_duplicates()) <= len(rows):
            return [_along(name, models, _COLORMAPS[0], apart=apart)]
    return [_as_categories(names, models)]


def compare_at_once(table: pd.DataFrame) -> Comparison:
    """One comparison of all models, for a figure that has one panel: those of a cross stand side by side.

    They are named by what they change of its centre, which is called the baseline.
    """
    compared = compare(table)
    if len(compared) == 1:
        return compared[0]
    centre: dict[str, Any] = _centre_of(compared)
    if any(comparison.apart for comparison in compared):
        centre[MARGIN_CONTROL] = False
    rows, labels, styles = [centre], [_BASELINE], [theme.Style("black", "*")]
    markers = itertools.cycle(theme.MARKERS)
    for comparison in compared:
        for line in comparison.lines(table):
            marker = next(markers)
            for point in comparison.points(line):
                own = point.rows.iloc[0][[str(comparison.setting), *comparison.apart]].to_dict()
                if own[str(comparison.setting)] != centre[str(comparison.setting)]:
                    rows.append(centre | own)
                    labels.append(", ".join(filter(None, (point.label, line.label))))
                    styles.append(theme.Style(point.style.color, marker))
    return _side_by_side(pd.DataFrame(rows), labels, styles)


def compare_along(table: pd.DataFrame, setting: str) -> Comparison:
    """The comparison along one setting, whatever else the models differ in.

    Args:
        table: of :func:`~spatialmae.analysis.settings.models_along`.
        setting: one that is a number.
    """
    return _along(setting, table, _COLORMAPS[0], apart=[name for name in varied(table) if name != setting])


def configurations(table: pd.DataFrame) -> list[Line]:
    """The rows of each configuration, rising in what varies, with its name and style."""
    compared = compare_at_once(table)
    if compared.apart:
        compared = _as_categories(*_configurations(table))
    return [point for line in compared.lines(table) for point in compared.points(line)]


def draw_dots(axes: Axes, comparison: Comparison, table: pd.DataFrame, x: str, y: str) -> None:
    """A dot for each model: colours by what the comparison is along, markers by what tells its lines apart, if any."""
    lines = comparison.lines(table)
    for line in lines:
        for point in comparison.points(line):
            marker = line.style.marker if comparison.apart else point.style.marker
            axes.plot(point.rows[x], point.rows[y], **dot_style(point.style.color, marker), label=point.label)
    for line in filter(lambda line: line.label, lines):
        axes.plot([], [], **dot_style("black", line.style.marker), label=line.label)


def dot_style(color: Any, marker: str) -> dict[str, Any]:
    """Dots without a line between them."""
    return {"color": color, "marker": marker, "linestyle": "", "alpha": 0.8}


def draw_reference(
    axes: Axes, comparison: Comparison, rows: pd.DataFrame, value: str, style: theme.Style, label: str
) -> None:
    """What models are held against: along the axis where it stands at several places, else as a level."""
    if len(rows.loc[rows[value].notna(), ALONG].dropna().unique()) > 1:
        linestyle = style.linestyle if comparison.linestyle else ""
        theme.draw_series(axes, rows, ALONG, value, replace(style, linestyle=linestyle), label)
    else:
        draw_level(axes, rows[value], style, label)


def draw_level(axes: Axes, values: pd.Series, style: theme.Style, label: str) -> None:
    """A horizontal line at the mean over seeds, if there is any."""
    if values.notna().any():
        axes.axhline(values.mean(), color=style.color, linestyle=style.linestyle, label=label, zorder=1.8)


def state_centre(compared: Sequence[Comparison]) -> list[str]:
    """Of a cross, what its comparisons hold, for :func:`~spatialmae.figures.theme.note`; else nothing."""
    if len(compared) == 1:
        return []
    centre = _centre_of(compared)
    return [f"{_BASELINE}: {settings_label(list(centre), list(centre.values()))}; others change one setting of it"]


def state_seeds(table: pd.DataFrame, by: str, value: str, *, interval: str = "bars") -> str:
    """The number of seeds behind each mean: of all rows that differ in ``by`` and in what varies."""
    settings = varied(table)
    # A setting that is missing (no bottleneck) is one of its values.
    keyed = table.assign(**{name: [str(value) for value in table[name]] for name in settings})
    return theme.state_n(keyed, [by, *settings], value, unit="seed", interval=interval)


def state_grid_edges(table: pd.DataFrame, chosen: str) -> list[str]:
    """How many choices among a few values of a setting fell on the first or the last, beyond which none was tried.

    Args:
        table: ``at_grid_edge``, missing where nothing was trained.
        chosen: the setting in words.
    """
    at_edge = table["at_grid_edge"].dropna().astype(bool)
    return [f"{chosen} chosen at an end of its grid: {at_edge.sum()} of {len(at_edge)}"] if at_edge.any() else []


def _configurations(table: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The settings that vary (the ratio, if none does), and a row for each configuration, rising."""
    rows = table[table["name"].notna()]
    names = varied(rows) or ["mask_ratio"]
    shown = list(dict.fromkeys([*names, "mask_ratio", "noise_std"]))  # the objective's name needs the last two
    return names, rows[shown].drop_duplicates().sort_values(names, ignore_index=True)


def _centre(models: pd.DataFrame, names: Sequence[str]) -> dict[str, float] | None:
    """The configuration from which each other one differs in a single number of these; None: there is none.

    Where margins have controls, it is one without a margin, which belongs to both.
    """
    if not all(_is_number(models[name]) for name in names):
        return None
    has_control = MARGIN_CONTROL in models and len(names) > 1
    candidates = models[models["loss_margin"] == 0] if has_control else models
    for _, one in candidates[names].iterrows():
        if ((models[names] != one).sum(axis=1) <= 1).all():
            return {str(name): float(value) for name, value in one.items()}
    return None


def _in_both_lines(rows: pd.DataFrame, setting: str | None, apart: Sequence[str]) -> pd.DataFrame:
    """Along ``loss_margin``, the rows with those without a margin, which its control starts from as well, once more."""
    if setting != "loss_margin" or MARGIN_CONTROL not in apart:
        return rows
    return pd.concat([rows, rows[rows["loss_margin"] == 0].assign(**{MARGIN_CONTROL: True})])


def _is_number(values: pd.Series) -> bool:
    return values.dtype.kind in "iuf" and bool(values.notna().all())


def _along(name: str, models: pd.DataFrame, colormap: str, **held_or_apart: Any) -> Comparison:
    """A comparison along a number."""
    values = [float(value) for value in sorted(models[name].unique())]
    if name == "mask_ratio":
        styles = {value: theme.Style(theme.RATIO_COLORMAP(value)) for value in values}
    else:
        styles = theme.sequence_styles(values, colormap)
    return Comparison(name, {value: setting_label(name, value) for value in values}, styles, **held_or_apart)


def _as_categories(names: list[str], models: pd.DataFrame) -> Comparison:
    """A comparison of configurations that no number orders, under short names."""
    labels = _short_names(names, models)
    return _side_by_side(models[names], labels, list(theme.category_styles(labels).values()))


def _side_by_side(settings: pd.DataFrame, labels: list[str], styles: list[theme.Style]) -> Comparison:
    """A comparison of configurations, a row of settings each, in their order."""
    places = [float(place) for place in range(len(settings))]
    names, at_places = dict(zip(places, labels, strict=True)), dict(zip(places, styles, strict=True))
    return Comparison(None, names, at_places, places=settings.assign(**{ALONG: places}))


def _short_names(names: list[str], models: pd.DataFrame) -> list[str]:
    """AE, DAE or MAE where there are several of them, and the settings in which models of one such kind differ."""
    models = models.assign(
        kind=[_objective(*row) for row in zip(models["mask_ratio"], models["noise_std"], strict=True)]
    )
    several = len(models["kind"].unique()) > 1
    short = []
    for row in models.to_dict("records"):
        alike = models[models["kind"] == row["kind"]]
        own = [setting_label(name, row[name]) for name in names if len(alike[name].unique()) > 1 and _tells(name, row)]
        short.append(", ".join([row["kind"], *own] if several else own))
    return short


def _tells(name: str, row: Mapping[str, Any]) -> bool:
    """Whether a setting says something of a model: what is left out does not, without a margin."""
    return name != MARGIN_CONTROL or row.get("loss_margin") != 0


def _objective(mask_ratio: float, noise_std: float) -> str:
    """What a model learns to do."""
    if mask_ratio == 0:
        return "DAE" if noise_std > 0 else "AE"
    return "MAE with noise" if noise_std > 0 else "MAE"


def _centre_of(compared: Sequence[Comparison]) -> dict[str, float]:
    """The centre of a cross: what each of its comparisons holds for the others, in their order."""
    held = {name: value for one in compared for name, value in one.held.items()}
    return {str(one.setting): held[str(one.setting)] for one in compared}
