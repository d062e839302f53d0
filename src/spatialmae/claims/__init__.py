"""The claims ledger: what both papers say, the rules frozen before the runs, and the verdicts code computes."""
