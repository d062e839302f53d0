"""Trained models of a small configuration, for tests of stages that look at them."""

from spatialmae.config import Config
from spatialmae.layout import Layout
from spatialmae.stages import data, plan
from spatialmae.train.plan import Plan
from spatialmae.train.workers import Options, train_run


def train_stages(config: Config) -> None:
    """Make the images of all training stages, and train their runs in this process."""
    for dataset in {stage.dataset for stage in config.training.values()}:
        data.run(config, dataset)
    for name in config.training:
        plan.run(config, name)
        written, images = Plan.load(Layout.of(config).plan(name)), {}
        for spec in written.runs:
            list(train_run(spec, written, Options(threads=1, device="cpu"), images))
