"""``spatialmae recommend``: the answer for a folder of images, on the terminal and in files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from spatialmae.artifacts import write_json, write_text
from spatialmae.errors import UserError, printable
from spatialmae.recommend.advice import MASK_RATIOS, N_STEPS, Advice, Calibration, advise
from spatialmae.recommend.answer import Answer
from spatialmae.recommend.configuration import LEAST_LABELLED, check_paths, has_classes, pipeline_config
from spatialmae.recommend.evidence import MAPS, default_grid
from spatialmae.recommend.images import FolderImages, read_images

MAE_OWN = "MAE's own setting, scaled to these images"
N_REASONS = 5  # files left out that the terminal names


def run(
    path: Path,
    *,
    image_size: int | None,
    resize: str | None,
    max_images: int,
    json_file: Path | None,
    html_file: Path | None,
    config_file: Path | None,
) -> None:
    """Print the answer, and write those of the files that are asked for.

    Raises:
        UserError: the folder holds too few usable images, or all are the same; or a file cannot be written.
    """
    _check_outputs([file for file in (json_file, html_file, config_file) if file is not None])
    if config_file is not None:
        check_paths(path)
    images = read_images(path, image_size=image_size, resize=resize, max_images=max_images)
    grid = default_grid(images.image_size, MASK_RATIOS)
    with tqdm(total=N_STEPS, desc="closed form", unit="solve") as progress:
        try:
            advice = advise(images, grid, Calibration.published(), progress.update)
        except ValueError as error:
            raise UserError.of(path, error) from None
    answer = Answer.of(advice, images)
    written: dict[Path, str] = {}  # all are made before the first is written
    if html_file is not None:
        from spatialmae.recommend.page import render
        from spatialmae.recommend.pictures import draw

        written[html_file] = render(advice, images, draw(advice, images))
    if config_file is not None:
        config = yaml.safe_dump(pipeline_config(advice, images), sort_keys=False, width=120, default_flow_style=None)
        written[config_file] = f"{_header(config_file)}{config}"
    if json_file is not None:
        about = {
            "path": printable(str(path)),
            "image_size": images.image_size,
            "resize": images.resize,
            "n_images": images.n_files,
        }
        about |= {"answer": asdict(answer), "skipped": images.skipped}
        write_json(_target(json_file), about | advice.to_dict())
    for file, text in written.items():
        write_text(_target(file), text)
    # After the files: a reader of the terminal may close it early.
    _print(advice, answer, images, writes_config=config_file is not None)


def _check_outputs(files: Sequence[Path]) -> None:
    """Before minutes of work rather than after."""
    targets = [_target(file) for file in files]
    for place, (file, target) in enumerate(zip(files, targets, strict=True)):
        if target in targets[:place]:
            raise UserError(file, "is named for two outputs", "name another file for each")
        if any(target in other.parents for other in targets):
            raise UserError(file, "is also the folder of another output", "name another file")
        _check_writable(file, target)


def _target(file: Path) -> Path:
    """What is written: behind a link, what it leads to."""
    return Path(os.path.realpath(file))


def _check_writable(file: Path, target: Path) -> None:
    if target.is_dir():
        raise UserError(file, "is a folder", "name a file to write")
    if target.exists() and not target.is_file():
        raise UserError(file, "is no regular file", "name a file to write")
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir():
        raise UserError(file, f"{folder} is a file, not a folder", "name another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(file, "its folder cannot be written to", "name another place, or change its permissions")


def _print(advice: Advice, answer: Answer, images: FolderImages, *, writes_config: bool) -> None:
    console = Console()
    console.print(f"\n[bold]{answer.headline}[/bold]\n")
    for title, text in (
        ("Images", answer.images),
        ("Rests on", answer.rests_on),
        ("How sure", answer.how_sure),
        ("Costs", answer.costs),
    ):
        console.print(f"[bold]{title}[/bold]  {text}", highlight=False)
    if answer.warning:
        console.print(f"[bold]Warning[/bold]  {answer.warning}", highlight=False)
    if writes_config and images.class_sizes and not has_classes(images):
        console.print(f"[bold]Classes[/bold]  {_too_small(images.class_sizes)}", highlight=False)
    for entry in images.skipped[:N_REASONS]:
        console.print(f"  left out: {entry['file']}: {entry['reason']}", highlight=False, markup=False)
    if len(images.skipped) > N_REASONS:
        console.print(f"  … and {len(images.skipped) - N_REASONS} more (--json and --html name all)", highlight=False)
    mark = "" if console.is_terminal else "*"
    for value, (title, digits) in MAPS.items():
        console.print(_table(advice, value, title, digits, mark))
    console.print(
        f"Marked{mark and f' ({mark})'}: {'the recommended setting' if advice.recommends else MAE_OWN}.",
        highlight=False,
    )


def _too_small(class_sizes: dict[str, int]) -> str:
    return (
        f"the smallest of {len(class_sizes)} subfolders holds {min(class_sizes.values())} images, and classes "
        f"are probed for from {LEAST_LABELLED} on: in the configuration that is written, subfolders are no classes."
    )


def _table(advice: Advice, value: str, title: str, digits: str, mark: str) -> Table:
    """``mark`` is put before the setting to follow, where bold type and colours are not to be seen."""
    table = Table(title=title, title_justify="left")
    table.add_column("patch (px)", justify="right")
    ratios = sorted(advice.cells["mask_ratio"].unique())
    for ratio in ratios:
        table.add_column(f"{ratio:g}", justify="right")
    for patch_size in advice.grid.patch_sizes:
        rows = advice.cells[advice.cells["patch_size"] == patch_size].set_index("mask_ratio")[value]
        entries = [f"{rows[ratio]:{digits}}" if ratio in rows else "–" for ratio in ratios]
        followed = [(patch_size, ratio) == advice.setting for ratio in ratios]
        shown = [
            f"[bold reverse]{mark}{entry}[/]" if own else entry for entry, own in zip(entries, followed, strict=True)
        ]
        table.add_row(str(patch_size), *shown)
    return table


def _header(path: Path) -> str:
    return (
        "# Written by `spatialmae recommend`: pretraining at the setting that it gave, and at MAE's own if that is\n"
        "# another, with Jacobians, and probes if subfolders are classes. What each key means: docs/configuration.md.\n"
        "# To be run from the root of the repository; results go to results/<name>:\n"
        f"#   snakemake --cores all --configfile {shlex.quote(str(path.resolve()))}\n"
    )
