"""Hierarchical latent-variable theory of masking (paper B): which latents the masked and the visible part share."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "shared": ["SharedLatents", "shared_latents"],
        "trees": ["complete_tree", "latents_by_height", "levels"],
    },
)
