"""What a training step takes in memory, counted as its tensors are made and saved."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Memory:
    """What a training step takes in memory, in bytes; a function of model and settings on one kind of device.

    Attributes:
        peak: the most that is alive at once: weights, moments, and what the forward and the backward pass make. The
            images, the decoder and the workspace of kernels are not counted.
        weights: encoder and head; frozen ones too, the decoder not.
        gradients: of the trained parameters.
        moments: AdamW's.
        saved: what autograd saves of the forward pass for the backward one, but for the weights themselves.
    """

    peak: int
    weights: int
    gradients: int
    moments: int
    saved: int


class LiveBytes(TorchDispatchMode):
    """Counts, as a context, the bytes of the tensors that operations make in it, and how many live at once at most."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note the storages that it made."""
        given = {storage.data_ptr() for storage in _storages((args, kwargs))}
        results = func(*args, **(kwargs or {}))
        for storage in _storages(results):
            # Not those of views, nor of what is written in place.
            if storage.data_ptr() not in given | self.live.keys():
                self._note(storage)
        return results

    def _note(self, storage: torch.UntypedStorage) -> None:
        self.live[storage.data_ptr()] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        # An address names a storage as long as it lives.
        weakref.finalize(storage, self._forget, storage.data_ptr())

    def _forget(self, address: int) -> None:
        self.now -= self.live.pop(address)


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts, as a context, the distinct storages that autograd saves in it for the backward pass.

    Args:
        resident: tensors that are in memory anyway, and are not counted.
    """

    def __init__(self, resident: Iterable[Tensor]) -> None:
        self.storages: dict[int, int] = {}
        kept = {tensor.untyped_storage().data_ptr() for tensor in resident}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            # An address names a storage as long as it lives, and what is saved lives until the backward pass.
            if storage.data_ptr() not in kept:
                self.storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        super().__init__(pack, lambda tensor: tensor)

    def __enter__(self) -> SavedBytes:  # type: ignore[override]
        super().__enter__()
        return self

    @property
    def total(self) -> int:
        """Bytes saved."""
        return sum(self.storages.values())


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    """Storages of the tensors among arguments or results."""
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def n_bytes(tensors: Iterable[Tensor]) -> int:
    """What tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
