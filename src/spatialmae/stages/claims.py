"""Stage ``claims``: verdicts on the ledger's claims from the tables of this configuration."""

from __future__ import annotations

from spatialmae.claims.verdicts import judge_claims
from spatialmae.config import Config
from spatialmae.layout import Layout


def run(config: Config) -> None:
    """Write ``claims.csv``, ``tables/claims_detail.csv`` and ``tables/claims_seeds.csv``."""
    layout, configuration = Layout.of(config), config.claims.configuration or config.name
    judge_claims(config.claims.ledger, layout.tables, configuration, layout.claims)
