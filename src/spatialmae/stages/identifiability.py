"""Stage ``identifiability``: whether masked prediction identifies the latents that both sides of a mask share (B3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import networkx as nx
import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config, Identifiability
from spatialmae.errors import UserError
from spatialmae.hierarchy.identifiability import MASKS, Cell, identifiability_rows
from spatialmae.hierarchy.mechanisms import GRAPHS
from spatialmae.hierarchy.predictors import Training
from spatialmae.layout import Layout
from spatialmae.tables import write_table

NAME = "hierarchy"
SPARE = 2  # coordinates more than c has, of the representation in the variant ``wider``


def run(config: Config) -> None:
    """Write ``tables/identifiability/hierarchy.csv``.

    Raises:
        UserError: the configuration has no such section.
    """
    if config.identifiability is None:
        raise UserError("identifiability", "the configuration has none", "add identifiability: {}, or more, to it")
    settings = config.identifiability
    seeds = range(config.first_seed, config.first_seed + settings.seeds)
    jobs = [(variant, cell, seed) for variant, cell in _cells(settings) for seed in seeds]
    rows = [
        {"variant": variant, **row}
        for variant, cell, seed in tqdm(jobs, desc="identifiability", unit="cell")
        for row in identifiability_rows(cell, seed)
    ]
    write_table(Layout.of(config).table("identifiability", NAME), pd.DataFrame(rows))


def _cells(settings: Identifiability) -> Iterator[tuple[str, Cell]]:
    """Each cell and what is special of it: nothing (``plain``), a ``wider`` representation, ``turned`` observables."""
    training = Training(n_train=settings.n_train, steps=settings.steps, random_mask_steps=settings.random_mask_steps)
    for graph in settings.graphs:
        cells = [
            Cell(
                graph,
                noise_scale,
                MASKS[graph],
                training=training,
                n_regression=settings.n_regression,
                n_validation=settings.n_validation,
                n_test=settings.n_test,
            )
            for noise_scale in settings.noise_scales
        ]
        yield from (("plain", cell) for cell in cells)
        if settings.counterexamples:
            yield "wider", replace(cells[0], extra_dims=SPARE)
            yield "turned", replace(cells[0], turned=_with_a_pair(GRAPHS[graph]()))


def _with_a_pair(graph: nx.DiGraph) -> tuple[str, ...]:
    """The observables that can be turned: their parents' values have two coordinates, one of each ancestor."""
    return tuple(sorted(x for x, degree in graph.out_degree if degree == 0 and len(nx.ancestors(graph, x)) > 1))
