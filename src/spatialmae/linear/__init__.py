"""Closed form of the linear masked autoencoder (paper A, Theorem 1) as a scikit-learn transformer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "estimator": ["LinearDAE", "LinearMAE"],
        "moments": ["Moments"],
        "sweep": ["Sweep"],
    },
)
