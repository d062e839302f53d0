"""Ridge probes on linear features: Gabor responses, depth, class labels (paper A, claims A7 and A8)."""
