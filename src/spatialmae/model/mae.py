"""The masked autoencoder of He et al. (CVPR 2022), small, for images of any shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spatialmae.model.checkpoint import read_checkpoint, write_checkpoint
from spatialmae.model.config import MAEConfig
from spatialmae.model.huggingface import our_model, their_model
from spatialmae.model.margin import counted_pixels
from spatialmae.model.masking import Masks
from spatialmae.model.patches import patch_statistics, patchify, sincos_positions, unpatchify
from spatialmae.model.transformer import Attention, AttentionKernel, Block
from spatialmae.shapes import Float

Intermediates = dict[str, Tensor]


@dataclass(frozen=True)
class MAEOutput:
    """What a forward pass gives.

    Attributes:
        loss: mean squared error over the patches that the objective counts, a scalar.
        pred: predicted patches in :func:`~spatialmae.model.patches.patchify`'s order; with ``norm_pix_loss`` in
            units of each target patch's own mean and deviation.
        mask: 1 = hidden.
        masks: the masks, with ``ids_keep`` and ``ids_restore``.
        latent: the encoder's tokens, [CLS] first, then the visible patches in the order of ``ids_keep``, after the
            last norm; with a bottleneck, before it.
        intermediates: if asked for, by name: ``encoder/embedded``, ``encoder/block{i}`` (N, 1+K, D),
            ``encoder/block{i}/attention`` (N, heads, 1+K, 1+K), ``encoder/norm``, ``bottleneck``, and the decoder's
            likewise (``decoder/…``, all 1+L tokens in image order). A fused attention leaves no map.
    """

    loss: Float[Tensor, ""]
    pred: Float[Tensor, "N L ppC"]
    mask: Float[Tensor, "N L"]
    masks: Masks
    latent: Float[Tensor, "N T D"]
    intermediates: Intermediates = field(default_factory=dict)


class MaskedAutoencoder(nn.Module):
    """A ViT encoder that sees the visible patches alone, and a light decoder that predicts all patches.

    Given the same weights and noise it equals ``transformers.ViTMAEForPreTraining``; see
    :meth:`from_huggingface` and :meth:`to_huggingface`.
    """

    encoder_positions: Tensor
    decoder_positions: Tensor

    def __init__(self, config: MAEConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = c = config
        self.patch_embedding = nn.Linear(c.patch_dim, c.encoder_dim)
        self.cls_token = nn.Parameter(torch.empty(c.encoder_dim))
        self.encoder = nn.ModuleList(
            Block(c.encoder_dim, c.encoder_heads, c.mlp_ratio, c.layer_norm_eps) for _ in range(c.encoder_depth)
        )
        self.encoder_norm = nn.LayerNorm(c.encoder_dim, eps=c.layer_norm_eps)
        self.bottleneck = nn.Identity() if c.bottleneck is None else nn.Linear(c.encoder_dim, c.bottleneck)
        self.decoder_embedding = nn.Linear(c.bottleneck or c.encoder_dim, c.decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(c.decoder_dim))
        self.decoder = nn.ModuleList(
            Block(c.decoder_dim, c.decoder_heads, c.mlp_ratio, c.layer_norm_eps) for _ in range(c.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(c.decoder_dim, eps=c.layer_norm_eps)
        self.decoder_pred = nn.Linear(c.decoder_dim, c.patch_dim)
        self.register_buffer("encoder_positions", sincos_positions(c.encoder_dim, c.grid))
        self.register_buffer("decoder_positions", sincos_positions(c.decoder_dim, c.grid))
        if not self.cls_token.is_meta:
            self.initialise(generator)

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights as facebookresearch/mae does: Xavier-uniform matrices, zero biases, tokens of σ = .02."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.cls_token, std=0.02, generator=generator)
        nn.init.normal_(self.mask_token, std=0.02, generator=generator)

    def forward(
        self,
        images: Float[Tensor, "N C H W"],
        noise: Float[Tensor, "N _"] | None = None,
        generator: torch.Generator | None = None,
        *,
        seen: Float[Tensor, "N C H W"] | None = None,
        intermediates: bool = False,
    ) -> MAEOutput:
        """Mask, encode, decode, and compare with the images.

        Args:
            images: normalised images, float (N, C, H, W).
            noise: uniform in [0, 1), (N, L), or (N, units) with ``mask_unit``: lowest noise stays visible. None
                draws it.
            generator: draws the masks, the input noise of a DAE, and the pixels that the control of ``loss_margin``
                leaves out; None: torch's global one.
            seen: what the encoder gets in place of the images, a DAE's noisy ones; None: :meth:`corrupt` makes it.
            intermediates: collect every layer's tokens and attention maps.

        Raises:
            ValueError: images or noise have another shape than the configuration says.
        """
        self._check(images)
        if noise is None:
            size = (len(images), self.config.n_units)
            noise = torch.rand(size, generator=generator, device=images.device)
        masks = Masks.from_noise(self.config, noise)
        if seen is None:
            seen = self.corrupt(images, generator)
        kept: Intermediates = {}
        latent = self.encode(seen, masks, kept if intermediates else None)
        pred = self.decode(latent, masks, kept if intermediates else None)
        left_out = self._draw_left_out(images, generator)
        return MAEOutput(self.loss(images, pred, masks.mask, left_out), pred, masks.mask, masks, latent, kept)

    def corrupt(
        self, images: Float[Tensor, "N C H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "N C H W"]:
        """The images with the DAE's noise, if the configuration has any."""
        if self.config.noise_std == 0:
            return images
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return images + self.config.noise_std * noise

    def encode(
        self, images: Float[Tensor, "N C H W"], masks: Masks | None = None, kept: Intermediates | None = None
    ) -> Float[Tensor, "N T D"]:
        """The encoder's tokens after its last norm, [CLS] first; nothing is masked by default, and nothing random.

        Args:
            images: normalised images.
            masks: which patches are seen; None: all.
            kept: a dictionary to collect intermediates in.

        Raises:
            ValueError: images have another shape than the configuration says.
        """
        self._check(images)
        if masks is None:
            masks = Masks.none_hidden(len(images), self.config.n_patches, images.device)
        patches = patchify(images, self.config.patch_size)
        ids = masks.ids_keep[..., None]
        # Only visible patches are embedded; expanding the index costs nothing, gathering after would.
        visible = patches.gather(1, ids.expand(-1, -1, patches.shape[-1]))
        tokens = self.patch_embedding(visible) + self.encoder_positions[1:][masks.ids_keep]
        cls = (self.cls_token + self.encoder_positions[0]).expand(len(images), 1, -1)
        x = torch.cat([cls.to(tokens.dtype), tokens], dim=1)
        padding = masks.keep_padding
        if padding is not None:
            padding = torch.cat([padding.new_zeros(len(padding), 1), padding], dim=1)
        x = _run(self.encoder, x, padding, "encoder", kept)
        return _keep(kept, "encoder/norm", self.encoder_norm(x))

    def decode(
        self, latent: Float[Tensor, "N T D"], masks: Masks, kept: Intermediates | None = None
    ) -> Float[Tensor, "N L ppC"]:
        """Predicted patches from the encoder's tokens of the visible ones."""
        x = self.decoder_embedding(_keep(kept, "bottleneck", self.bottleneck(latent)))
        n, n_patches = masks.mask.shape
        hidden = self.mask_token.to(x.dtype).expand(n, n_patches - (x.shape[1] - 1), -1)
        # Patch i stands at ids_restore[i] of (visible, hidden); padding holds hidden patches, which see no latent.
        ordered = torch.cat([x[:, 1:], hidden], dim=1).gather(
            1, masks.ids_restore[..., None].expand(-1, -1, x.shape[2])
        )
        if masks.keep_padding is not None:
            ordered = torch.where(masks.mask[..., None] > 0, self.mask_token.to(x.dtype), ordered)
        x = torch.cat([x[:, :1], ordered], dim=1) + self.decoder_positions
        x = _run(self.decoder, x, None, "decoder", kept)
        return self.decoder_pred(_keep(kept, "decoder/norm", self.decoder_norm(x))[:, 1:])

    def targets(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N L ppC"]:
        """What is predicted: the patches, each normalised by itself with ``norm_pix_loss``."""
        patches = patchify(images, self.config.patch_size)
        if not self.config.norm_pix_loss:
            return patches
        mean, std = patch_statistics(patches)
        return (patches - mean) / std

    def _draw_left_out(
        self, images: Float[Tensor, "N C H W"], generator: torch.Generator | None
    ) -> Float[Tensor, "N 1 H W"] | None:
        """Noise that chooses what the control of ``loss_margin`` leaves out; None: the configuration is none."""
        if not self.config.loss_margin_control:
            return None
        size = (len(images), 1, *self.config.image_hw)
        return torch.rand(size, generator=generator, device=images.device)

    def loss(
        self,
        images: Float[Tensor, "N C H W"],
        pred: Float[Tensor, "N L ppC"],
        mask: Float[Tensor, "N L"],
        left_out: Float[Tensor, "N 1 H W"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error over hidden patches, or over all with ``loss_on="all"``.

        With ``loss_margin`` over hidden pixels away from visible ones, see
        :func:`~spatialmae.model.margin.counted_pixels`, whose noise ``left_out`` is.
        """
        squared = (pred - self.targets(images)).square()
        if self.config.loss_margin:
            of_pixel = squared.unflatten(-1, (-1, self.config.channels)).mean(dim=-1)
            counted = counted_pixels(self.config, mask, left_out)
            return (of_pixel * counted).sum() / counted.sum().clamp(min=1)
        error = squared.mean(dim=-1)
        if self.config.loss_on == "all":
            return error.mean()
        # Independent masks may hide nothing in a whole batch.
        return (error * mask).sum() / mask.sum().clamp(min=1)

    def reconstruct(self, images: Float[Tensor, "N C H W"], masks: Masks | None = None) -> Float[Tensor, "N C H W"]:
        """Predicted images, from all patches by default. Patches that no loss ever trained are arbitrary.

        Raises:
            ValueError: the model predicts normalised patches (``norm_pix_loss``), which are no image.
        """
        if self.config.norm_pix_loss:
            raise ValueError("norm_pix_loss: predictions are in units of each target patch, which are no image")
        if masks is None:
            masks = Masks.none_hidden(len(images), self.config.n_patches, images.device)
        pred = self.decode(self.encode(images, masks), masks)
        return unpatchify(pred, self.config.patch_size, self.config.image_hw)

    def set_attention_kernel(self, kernel: AttentionKernel) -> None:
        """Compute attention by "explicit" products, whose maps and forward-mode derivatives exist, or "fused"."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.kernel = kernel

    @classmethod
    def from_weights(cls, config: MAEConfig, tensors: Mapping[str, Tensor]) -> MaskedAutoencoder:
        """A model that holds these very tensors, by the names of its ``state_dict``.

        Raises:
            ValueError: a tensor is missing, unknown, of another shape, or not of a floating type; the message names it.
        """
        # On the meta device nothing is allocated, initialised or drawn.
        with torch.device("meta"):
            model = cls(config)
        expected = model.state_dict()
        for name in (*expected, *tensors):
            if name not in tensors:
                raise ValueError(f"{name}: missing")
            if name not in expected:
                raise ValueError(f"{name}: unknown")
            shape, right = tuple(tensors[name].shape), tuple(expected[name].shape)
            if shape != right:
                raise ValueError(f"{name}: has shape {shape}, not {right}")
            if not tensors[name].is_floating_point():
                raise ValueError(f"{name}: is {tensors[name].dtype}, not of a floating type")
        model.load_state_dict(tensors, assign=True)
        return model

    def save_pretrained(self, folder: Path | str, extra: Mapping[str, Any] | None = None) -> None:
        """Write the model to a folder; see :func:`spatialmae.model.checkpoint.write_checkpoint`."""
        write_checkpoint(folder, self.config, self.state_dict(), extra)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> MaskedAutoencoder:
        """Read a model from a folder; see :func:`spatialmae.model.checkpoint.read_checkpoint`."""
        return read_checkpoint(folder, cls.from_weights)

    @classmethod
    def from_huggingface(cls, vit_mae: nn.Module) -> MaskedAutoencoder:
        """Convert Hugging Face's model; see :func:`spatialmae.model.huggingface.our_model`."""
        return cls.from_weights(*our_model(vit_mae)).train(vit_mae.training)

    def to_huggingface(self) -> nn.Module:
        """Convert to Hugging Face's model; see :func:`spatialmae.model.huggingface.their_model`."""
        return their_model(self.config, self.state_dict()).train(self.training)

    def _check(self, images: Tensor) -> None:
        expected = (self.config.channels, *self.config.image_hw)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"images have shape {tuple(images.shape)}, not (N, {', '.join(map(str, expected))})")


def _run(
    blocks: nn.ModuleList, x: Tensor, padding: Tensor | None, name: str, kept: Intermediates | None
) -> Float[Tensor, "N T D"]:
    _keep(kept, f"{name}/embedded", x)
    for i, block in enumerate(blocks):
        x, attention = block(x, padding)
        _keep(kept, f"{name}/block{i}", x)
        if attention is not None:
            _keep(kept, f"{name}/block{i}/attention", attention)
    return x


def _keep(kept: Intermediates | None, name: str, value: Tensor) -> Tensor:
    if kept is not None:
        kept[name] = value
    return value
