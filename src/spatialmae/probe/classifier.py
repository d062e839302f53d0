"""An encoder with a linear head, and its accuracy; torch and numpy alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from spatialmae.model.mae import MaskedAutoencoder
from spatialmae.probe.representation import BATCH_NORM_EPS, pool
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.shapes import Float, Int64, UInt8
from spatialmae.train.batches import TrainingImages

HEAD_STD = 0.01  # of the head's initial weights
EVALUATION_BATCH = 256


class Classifier(nn.Module):
    """An encoder, and a head on its feature: BatchNorm without affine parameters, then a linear layer.

    The feature is of the tokens after the encoder's last norm, before any bottleneck, nothing masked. Frozen layers lie
    below the trained ones, so that autograd neither saves anything for them nor goes back through them. The decoder
    takes no part.

    Args:
        mae: its encoder is trained in place.
        n_classes: outputs.
        config: which layers are trained, and the feature.
        generator: draws the head's weights.
        bf16: run the encoder under bf16 autocast; the head is always in float32.

    Raises:
        ValueError: more blocks are to be trained than there are.
    """

    def __init__(
        self, mae: MaskedAutoencoder, n_classes: int, config: FineTuneConfig, generator: torch.Generator, *, bf16: bool
    ) -> None:
        super().__init__()
        depth = len(mae.encoder)
        if config.n_blocks is not None and config.n_blocks > depth:
            raise ValueError(f"n_blocks: {config.n_blocks} exceeds the {depth} blocks of the encoder; lower it")
        self.mae, self.feature, self.bf16 = mae.requires_grad_(False), config.feature, bf16
        self.batch_norm = nn.BatchNorm1d(mae.config.encoder_dim, eps=BATCH_NORM_EPS, affine=False)
        self.linear = nn.Linear(mae.config.encoder_dim, n_classes)
        nn.init.normal_(self.linear.weight, std=HEAD_STD, generator=generator)
        nn.init.zeros_(self.linear.bias)
        n_trained = {None: depth + 2, 0: 0}.get(config.n_blocks, (config.n_blocks or 0) + 1)
        for layer in self.encoder_layers()[depth + 2 - n_trained :]:
            for parameter in layer:
                parameter.requires_grad_(True)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N classes"]:
        """Logits of normalised images."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            tokens = self.mae.encode(images)
        return self.linear(self.batch_norm(pool(tokens, self.feature).float()))

    def encoder_layers(self) -> list[list[nn.Parameter]]:
        """The encoder's parameters from input to output: patch embedding with [CLS], each block, the last norm."""
        mae = self.mae
        embedding = [*mae.patch_embedding.parameters(), mae.cls_token]
        return [embedding, *(list(block.parameters()) for block in mae.encoder), list(mae.encoder_norm.parameters())]

    def used_parameters(self) -> list[nn.Parameter]:
        """All parameters but the decoder's."""
        return [p for layer in self.encoder_layers() for p in layer] + list(self.linear.parameters())

    def parameter_groups(self, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """AdamW's groups of the trained parameters, each with the ``scale`` of its learning rate.

        As in facebookresearch/mae: the head and the norm before it have scale 1, and each layer below
        ``layer_decay`` times that of the one above it.
        """
        layers = self.encoder_layers()
        layers[-1] = layers[-1] + list(self.linear.parameters())
        groups = []
        for height, layer in enumerate(reversed(layers)):
            trained = [p for p in layer if p.requires_grad]
            for decay, chosen in (
                (weight_decay, [p for p in trained if p.ndim > 1]),
                (0.0, [p for p in trained if p.ndim <= 1]),
            ):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "scale": layer_decay**height})
        return groups


@torch.no_grad()
def accuracy(
    classifier: Classifier, data: TrainingImages, images: UInt8[Tensor, "n C H W"], labels: Int64[Tensor, " n"]
) -> float:
    """Share of images that are given their class, 0 … 1; NaN if a logit is not finite.

    Args:
        classifier: is put into evaluation mode.
        data: says how images are normalised.
        images: to classify.
        labels: their classes.
    """
    classifier.eval()
    hits, finite = 0, True
    for batch, expected in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
        logits = classifier(data.normalise(batch))
        hits += int((logits.argmax(dim=1) == expected).sum())
        finite = finite and bool(logits.isfinite().all())
    return hits / len(images) if finite else math.nan
