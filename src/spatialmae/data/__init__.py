"""Data sources, each a function that returns one :class:`~spatialmae.data.dataset.ImageData`.

A source that shares its module's name is imported from that module
(``from spatialmae.data.dead_leaves import dead_leaves``): exported here, it would be shadowed by the module.
"""

from pkgutil import iter_modules

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[module.name for module in iter_modules(__path__)],
    submod_attrs={
        "dataset": ["ImageData"],
        "ising": ["chain_second_moment", "ising_chain", "ising_lattice"],
        "photos": ["depth", "textures"],
    },
)
