"""Masked autoencoders and spatial correlations: a rerunnable replication of two papers.

A: Bisulco et al., ICCV 2025 (arXiv 2508.15404); B: Kong et al., CVPR 2023 (arXiv 2306.04898).
"""

__version__ = "0.1.0"
