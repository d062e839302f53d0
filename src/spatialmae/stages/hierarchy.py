"""Stage ``hierarchy``: Theorem 1 of paper B on random graphs, and the level of the shared latents on trees (B1, B2)."""

from __future__ import annotations

import pandas as pd
from tqdm import tqdm

from spatialmae.config import Config
from spatialmae.errors import UserError
from spatialmae.hierarchy.checks import theorem_rows
from spatialmae.hierarchy.trees import Tree, levels
from spatialmae.layout import Layout
from spatialmae.tables import write_table

NAME = "hierarchy"


def run(config: Config) -> None:
    """Write ``tables/hierarchy_theorem/hierarchy.csv`` and ``tables/hierarchy_levels/hierarchy.csv``.

    Raises:
        UserError: the configuration has no such section.
    """
    if config.hierarchy is None:
        raise UserError("hierarchy", "the configuration has none", "add hierarchy: {}, or more, to it")
    settings, layout = config.hierarchy, Layout.of(config)
    rows = [
        row
        for seed in tqdm(config.simulation_seeds, desc="theorem 1", unit="seed")
        for row in theorem_rows(settings.n_graphs, settings.masks_per_graph, seed)
    ]
    write_table(layout.table("hierarchy_theorem", NAME), pd.DataFrame(rows))
    trees: list[tuple[Tree, int, list[int]]] = [
        ("binary", settings.binary_depth, settings.binary_patch_sizes),
        ("quad", settings.quad_depth, settings.quad_patch_sizes),
    ]
    parts = [
        levels(
            tree,
            depth,
            patch_sizes=patch_sizes,
            mask_ratios=settings.mask_ratios,
            n_masks=settings.n_masks,
            seeds=config.simulation_seeds,
        )
        for tree, depth, patch_sizes in trees
    ]
    write_table(layout.table("hierarchy_levels", NAME), pd.concat(parts))
