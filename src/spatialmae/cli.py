"""Command line: every stage of the pipeline without Snakemake, and nothing but calls into the stages.

Stages are imported when called, so that each starts fast and none needs what another needs.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from spatialmae.errors import UserError

app = typer.Typer(
    name="spatialmae",
    help="Replicate what masked autoencoders learn of spatial correlations, stage by stage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Configuration file.", show_default=True)]
DatasetArgument = Annotated[str, typer.Argument(help="Name of a data set of the configuration.")]
TrainingArgument = Annotated[str, typer.Argument(help="Name of a training of the configuration.")]
DEFAULT, DEVIATIONS = Path("config/config.yaml"), Path("docs/deviations.md")


def _run(
    stage: str, config_path: Path, dataset: str | None = None, *arguments: str, analysis: str | None = None
) -> None:
    from spatialmae.config import load_config

    config = load_config(config_path)
    if dataset is not None and dataset not in config.datasets:
        raise UserError(config_path, f"datasets has no {dataset!r}", f"use one of {', '.join(config.datasets)}")
    if dataset is not None and analysis is not None and analysis not in config.datasets[dataset].analyses:
        raise UserError(config_path, f"datasets.{dataset}.analyses lacks {analysis}", "add it, if the images have it")
    run = import_module(f"spatialmae.stages.{stage}").run
    run(config, *arguments, *([] if dataset is None else [dataset]))


@app.command()
def data(dataset: DatasetArgument, config: ConfigOption = DEFAULT) -> None:
    """Make or read the images of a data set."""
    _run("data", config, dataset)


@app.command()
def statistics(dataset: DatasetArgument, config: ConfigOption = DEFAULT) -> None:
    """Measure spatial statistics of a data set."""
    _run("statistics", config, dataset)


@app.command()
def linear(dataset: DatasetArgument, config: ConfigOption = DEFAULT) -> None:
    """Solve the linear AE, DAE and MAE in closed form."""
    _run("linear", config, dataset)


@app.command()
def checks(config: ConfigOption = DEFAULT) -> None:
    """Hold the closed form against gradient descent, PCA and random masks."""
    _run("checks", config)


def _run_training(stage: str, config_path: Path, training: str) -> None:
    from spatialmae.config import load_config

    config = load_config(config_path)
    if training not in config.training:
        known = ", ".join(config.training)
        hint = f"use one of {known}" if known else "add it (docs/configuration.md says what it holds)"
        raise UserError(config_path, f"training has no {training!r}", hint)
    import_module(f"spatialmae.stages.{stage}").run(config, training)


@app.command()
def plan(training: TrainingArgument, config: ConfigOption = DEFAULT) -> None:
    """Write down what a training holds, for a machine without Snakemake."""
    _run_training("plan", config, training)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def train(context: typer.Context) -> None:
    """Train the runs of a plan (`spatialmae train --help`)."""
    # `python -m spatialmae` goes there directly, without this module's dependencies.
    from spatialmae.train.command import main

    main(context.args)


@app.command("train-run")
def train_run(
    run: Annotated[str, typer.Argument(help="Name of a run, as in results/<name>/runs.")],
    config: ConfigOption = DEFAULT,
) -> None:
    """Train one run of the configuration, or go on with it."""
    _run("train", config, None, run)


@app.command()
def collect(training: TrainingArgument, config: ConfigOption = DEFAULT) -> None:
    """Gather the runs of a training: curves, costs, reconstructions."""
    _run_training("training", config, training)


@app.command()
def features(dataset: DatasetArgument, config: ConfigOption = DEFAULT) -> None:
    """Measure variance kept and redundancy across patches."""
    _run("features", config, dataset)


@app.command()
def ising(config: ConfigOption = DEFAULT) -> None:
    """Measure where in a patch the weights lie on Ising data."""
    _run("ising", config)


@app.command()
def hierarchy(config: ConfigOption = DEFAULT) -> None:
    """Check paper B's Theorem 1 on random graphs, and measure the level of shared latents on trees."""
    _run("hierarchy", config)


@app.command()
def identifiability(config: ConfigOption = DEFAULT) -> None:
    """Measure what masked prediction identifies of known latents."""
    _run("identifiability", config)


@app.command()
def reach(dataset: DatasetArgument, config: ConfigOption = DEFAULT) -> None:
    """Measure how far the linear Jacobians reach."""
    _run("reach", config, dataset)


@app.command()
def sampling(dataset: DatasetArgument, config: ConfigOption = DEFAULT) -> None:
    """Measure how much of the linear reach is noise of the second moments."""
    _run("sampling", config, dataset)


@app.command()
def probe(
    name: Annotated[str, typer.Argument(help="gabor, depth or class.")],
    dataset: DatasetArgument,
    config: ConfigOption = DEFAULT,
) -> None:
    """Probe the linear features: Gabor responses, depth, classes."""
    if name not in ("gabor", "depth", "class"):
        raise UserError("probe", f"unknown probe {name!r}", "use gabor, depth or class")
    _run(f"probe_{name}", config, dataset, analysis=f"probe_{name}")


@app.command()
def evaluate(
    measure: Annotated[str, typer.Argument(help="One of those in docs/configuration.md, e.g. linear_probe.")],
    evaluation: Annotated[str, typer.Argument(help="Name of an evaluation of the configuration.")],
    config: ConfigOption = DEFAULT,
) -> None:
    """Measure trained models: Jacobians, the bound of second moments, probes, fine-tuning."""
    from spatialmae.config import load_config
    from spatialmae.measures import MEASURES

    settings = load_config(config)
    if evaluation not in settings.evaluations:
        known = ", ".join(settings.evaluations)
        hint = f"use one of {known}" if known else "add it (docs/configuration.md says what it holds)"
        raise UserError(config, f"evaluations has no {evaluation!r}", hint)
    if measure not in settings.evaluations[evaluation].analyses:
        problem = f"evaluations.{evaluation}.analyses lacks {measure!r}"
        raise UserError(config, problem, f"use one of {', '.join(MEASURES)}, and add it there")
    import_module("spatialmae.stages.evaluate").run(settings, measure, evaluation)


@app.command()
def part(
    name: Annotated[str, typer.Argument(help="Name of a part of the configuration.")], config: ConfigOption = DEFAULT
) -> None:
    """Note what the tables of a part of the study were made from and with, once all are there."""
    _run("part", config, None, name)


@app.command()
def claims(config: ConfigOption = DEFAULT) -> None:
    """Judge the claims of the ledger by the tables."""
    _run("claims", config)


@app.command()
def notebook(
    source: Annotated[Path, typer.Argument(help="A figure notebook, e.g. notebooks/reach.ipynb.")],
    config: ConfigOption = DEFAULT,
    log: Annotated[Path | None, typer.Option(help="Executed copy that survives a failure.")] = None,
) -> None:
    """Execute a figure notebook."""
    from spatialmae.config import load_config
    from spatialmae.stages.figures import run

    run(load_config(config), source, log)


@app.command()
def report(
    config: ConfigOption = DEFAULT,
    deviations: Annotated[Path, typer.Option(help="Departures from the papers, shown in the report.")] = DEVIATIONS,
) -> None:
    """Write the report and its provenance."""
    from spatialmae.config import load_config
    from spatialmae.stages.report import run

    run(load_config(config), deviations)


@app.command()
def resolve(config: ConfigOption = DEFAULT) -> None:
    """Validate a configuration and write it, complete with defaults, beside its results."""
    _run("resolve", config)


@app.command("import-huggingface")
def import_huggingface(
    source: Annotated[str, typer.Argument(help="Folder, or name on the Hugging Face Hub: facebook/vit-mae-base.")],
    out: Annotated[Path, typer.Argument(help="Folder for our checkpoint.")],
) -> None:
    """Convert a ViTMAE checkpoint of transformers to ours."""
    from spatialmae.stages.huggingface import import_huggingface as convert

    convert(source, out)


@app.command("export-huggingface")
def export_huggingface(
    folder: Annotated[Path, typer.Argument(help="Folder of our checkpoint.")],
    out: Annotated[Path, typer.Argument(help="Folder for transformers' from_pretrained.")],
) -> None:
    """Convert a checkpoint of ours to transformers' ViTMAE."""
    from spatialmae.stages.huggingface import export_huggingface as convert

    convert(folder, out)


@app.command()
def recommend(
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder of at least 100 images: PNG, JPEG, WebP, or npy arrays (h, w, c); subfolders are classes."
        ),
    ],
    image_size: Annotated[
        int | None, typer.Option(help="Side in px to analyse at; default: 64, less for less.")
    ] = None,
    resize: Annotated[str | None, typer.Option(help="crop, stretch or tiles; default: by the images' size.")] = None,
    max_images: Annotated[int, typer.Option(help="Images to read, evenly taken from the folder.")] = 10_000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers here.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures here.")] = None,
    config_file: Annotated[
        Path | None, typer.Option("--write-config", help="Write a configuration for these images here.")
    ] = None,
) -> None:
    """Say which patch size and masking ratio suit a folder of images, and how sure that is."""
    from spatialmae.stages.recommend import run

    run(
        path,
        image_size=image_size,
        resize=resize,
        max_images=max_images,
        json_file=json_file,
        html_file=html_file,
        config_file=config_file,
    )


@app.command()
def calibrate(config: ConfigOption = DEFAULT) -> None:
    """Measure what the recommender's rules are worth on the configuration's data sets."""
    _run("calibration", config)


@app.command()
def publish(config: ConfigOption = DEFAULT) -> None:
    """Copy a finished run into results/reference/ and its verdicts into the README, to be committed."""
    _run("publish", config)


@app.command("config-docs")
def config_docs() -> None:
    """Print docs/configuration.md, generated from the configuration's model."""
    from spatialmae.config_docs import configuration_page

    typer.echo(configuration_page(), nl=False)
