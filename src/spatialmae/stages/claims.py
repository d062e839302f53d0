"""Stage ``claims``: verdicts on the ledger's claims from the tables of this configuration."""

from __future__ import annotations

from functools import partial

from spatialmae.claims.verdicts import judge_claims
from spatialmae.config import Config
from spatialmae.layout import Layout, finished, makes_table


def run(config: Config) -> None:
    """Write ``claims.csv``, ``tables/claims_detail.csv`` and ``tables/claims_seeds.csv``.

    Claims are tested as far as the configuration goes, and as its parts are finished: one that leaves out an evaluation
    leaves its claims untested.
    """
    layout, configuration = Layout.of(config), config.claims.configuration or config.name
    makes = partial(makes_table, finished(config))
    judge_claims(config.claims.ledger, layout.tables, configuration, layout.claims, makes)
