"""Analyses of data and of learned features: point values for one seed, intervals are made across seeds."""
