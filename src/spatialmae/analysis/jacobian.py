"""Jacobian ∂(reconstruction)/∂(visible input) of a masked autoencoder, and its spectrum.

All outputs are done together, backwards. At given tokens a block is a linear map of small changes; what it does within
a token (norms, residual, MLP, query) is multiplied out to one matrix a token, which all outputs share, so that each
output costs about a third of the operations of backpropagation. The decoder's last block is only needed at the tokens
looked at, and below the decoder hidden patches are not needed at all.

Derivatives are written out for :class:`~spatialmae.model.transformer.Block`; the tests hold them to autograd's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from spatialmae.model.config import MAEConfig
from spatialmae.model.mae import Intermediates, MaskedAutoencoder
from spatialmae.model.masking import Masks
from spatialmae.model.transformer import Block


@torch.no_grad()
def reconstruction_jacobian(
    model: MaskedAutoencoder,
    images: Float[Tensor, "N C H W"],
    masks: Masks,
    outputs: Int64[Tensor, " o"] | Int64[np.ndarray, " o"] | None = None,
    *,
    max_bytes: int = 2**28,
) -> Float[Tensor, "N d_in d_out"]:
    """Jacobian of each image's reconstruction with respect to what is visible of it.

    Entry ij is ∂(predicted feature j)/∂(input feature i), features in C order of (row, column, channel), as in the
    linear theory's W = A B. Rows of hidden inputs are 0. Predictions are the model's own, of visible patches too
    (which are arbitrary where no loss was on them); a denoising autoencoder's noise is not added.

    Args:
        model: is only read.
        images: normalised, of the model's type and on its device.
        masks: what is visible of each image.
        outputs: pixels whose predictions are looked at, row-major indices; each gives a column for every channel, in
            the order given. None: all pixels.
        max_bytes: bounds the arrays alive at once, the result not counted; but one image and one patch of
            outputs are always done together.

    Returns:
        (N, h·w·c, outputs·c), of the model's type.

    Raises:
        ValueError: the model predicts normalised patches (``norm_pix_loss``), or images, masks or outputs do not fit.
    """
    config = model.config
    if config.norm_pix_loss:
        raise ValueError("norm_pix_loss: predictions are in units of each target patch, which are no image")
    if masks.mask.shape != (len(images), config.n_patches):
        raise ValueError(f"masks have shape {tuple(masks.mask.shape)}, not ({len(images)}, {config.n_patches})")
    features = _features_of_patches(config)
    wanted = _Outputs.of(config, features, outputs)
    jacobian = images.new_zeros(len(images), features.numel(), wanted.n)
    for chosen, parts in _chunks(config, masks, wanted, max_bytes * 8 // torch.finfo(images.dtype).bits):
        chosen_masks = _select(masks, chosen)
        linear = _LinearMAE.at(model, images[chosen], chosen_masks, wanted.patches)
        rows = features.to(images.device)[chosen_masks.ids_keep].flatten(1)
        for part in parts:
            entries = linear.pull(part, wanted.within[part])
            columns = wanted.columns[part].flatten().to(images.device)
            for image, row, entry in zip(jacobian[chosen], rows, entries, strict=True):
                image[row[:, None], columns] = entry.flatten(0, 1)
    return jacobian


@dataclass(frozen=True)
class SingularSpectrum:
    """Singular values of a Jacobian, and the leading directions.

    A change along input direction k changes the outputs by value k along output direction k. The sign of a pair makes
    the largest entry of its output direction positive.

    Attributes:
        values: all of them that can differ from 0, descending.
        inputs: right-hand directions of what is seen, unit norm; 0 at hidden pixels.
        outputs: what they make of the reconstruction, unit norm.
    """

    values: Float[Tensor, " r"]
    inputs: Float[Tensor, "k d_in"]
    outputs: Float[Tensor, "k d_out"]


def singular_spectrum(jacobian: Float[Tensor, "d_in d_out"], n_directions: int) -> SingularSpectrum:
    """Singular values and the ``n_directions`` leading pairs of directions of one image's Jacobian.

    Args:
        jacobian: rows inputs, columns outputs.
        n_directions: how many pairs of directions to keep, at most as many as there are singular values.
    """
    seen = (jacobian != 0).any(dim=1)  # a high ratio leaves little of the decomposition
    left, values, right = torch.linalg.svd(jacobian[seen], full_matrices=False)
    outputs = right[:n_directions]
    largest = outputs.gather(1, outputs.abs().argmax(dim=1, keepdim=True))
    inputs = jacobian.new_zeros(len(outputs), len(jacobian))
    inputs[:, seen] = left[:, :n_directions].t() * largest.sign()
    outputs = outputs * largest.sign()
    return SingularSpectrum(values, inputs, outputs)


@dataclass(frozen=True)
class _Outputs:
    """Columns of the Jacobian by patch, as many for each: those of a patch that has fewer are repeated.

    Attributes:
        n: how many columns there are.
        patches: the patches that outputs lie in.
        within: which of a patch's features.
        columns: which of the columns.
    """

    n: int
    patches: Int64[Tensor, " P"]
    within: Int64[Tensor, "P c"]
    columns: Int64[Tensor, "P c"]

    @classmethod
    def of(cls, config: MAEConfig, features: Int64[Tensor, "L ppC"], pixels: Tensor | np.ndarray | None) -> _Outputs:
        n_pixels = features.numel() // config.channels
        pixels = torch.arange(n_pixels) if pixels is None else torch.as_tensor(pixels).cpu()
        if pixels.numel() == 0 or not 0 <= int(pixels.min()) <= int(pixels.max()) < n_pixels:
            raise ValueError(f"outputs: not pixels of the image; give indices from 0 to {n_pixels - 1}")
        wanted = (pixels[:, None] * config.channels + torch.arange(config.channels)).flatten()
        place = features.flatten().argsort()[wanted]  # of a feature among the patches' features
        patch, within = place // config.patch_dim, place % config.patch_dim
        groups = [(patch == p).nonzero().flatten() for p in patch.unique()]
        most = torch.arange(max(map(len, groups)))
        columns = torch.stack([group[most % len(group)] for group in groups])
        return cls(len(wanted), patch.unique(), within[columns], columns)


def _features_of_patches(config: MAEConfig) -> Int64[Tensor, "L ppC"]:
    """The image's feature, in C order of (row, column, channel), at each place of each patch."""
    (rows, columns), p = config.grid, config.patch_size
    features = torch.arange(config.n_patches * config.patch_dim).reshape(rows, p, columns, p * config.channels)
    return features.transpose(1, 2).reshape(config.n_patches, config.patch_dim)


def _select(masks: Masks, images: slice) -> Masks:
    padding = None if masks.keep_padding is None else masks.keep_padding[images]
    return Masks(masks.ids_keep[images], masks.ids_restore[images], masks.mask[images], padding)


def _chunks(config: MAEConfig, masks: Masks, wanted: _Outputs, numbers: int) -> Iterator[tuple[slice, list[slice]]]:
    """Images, and parts of the patches of outputs, such that about so many numbers are alive at once."""
    seen, tokens, c = 1 + masks.ids_keep.shape[1], 1 + config.n_patches, config

    def linear(n_tokens: int, dim: int, depth: int) -> int:
        # A block's matrices; twice an MLP's matrix in the making.
        return n_tokens * dim * (depth * (4 * dim + n_tokens) + 2 * int(c.mlp_ratio * dim))

    fixed = linear(seen, c.encoder_dim, c.encoder_depth) + linear(tokens, c.decoder_dim, c.decoder_depth)
    output = max(
        seen * (8 * c.encoder_dim + c.encoder_heads * seen), tokens * (8 * c.decoder_dim + c.decoder_heads * tokens)
    )
    n, patches = len(masks.mask), len(wanted.patches)
    patch = wanted.within.shape[1] * output
    images = max(1, min(n, numbers // (fixed + patches * patch)))
    at_once = max(1, min(patches, (numbers // images - fixed) // patch))
    parts = [slice(start, start + at_once) for start in range(0, patches, at_once)]
    for start in range(0, n, images):
        yield slice(start, start + images), parts


@dataclass(frozen=True)
class _LinearBlock:
    """A transformer block as a linear map of small changes, from the first S of its tokens, the senders, to receivers.

    Attributes:
        own: from a token to itself by residual, MLP and query; of the receivers, or of as many first of them as send.
        mixed: from what attention gives a receiver, before its projection, to the receiver.
        keys_values: from a sender to its key and value.
        queries: of the receivers, times 1/√d.
        attention: of receivers to senders.
        scores: from a score to what attention gives, A_ij (v_j − Σ_j A_ij v_j).
    """

    own: Float[Tensor, "N _ D D_in"]
    mixed: Float[Tensor, "N R D D"]
    keys_values: Float[Tensor, "N S 2*D D_in"]
    queries: Float[Tensor, "N heads R d"]
    attention: Float[Tensor, "N heads R S"]
    scores: Float[Tensor, "N heads R S d"]

    @classmethod
    def at(
        cls,
        block: Block,
        x: Float[Tensor, "N T D"],
        padding: Bool[Tensor, "N T"] | None = None,
        receivers: Int64[Tensor, "N R"] | None = None,
        n_senders: int | None = None,
    ) -> _LinearBlock:
        """The block at tokens ``x``; receivers and senders are all tokens by default."""
        attention, dim = block.attention, x.shape[-1]
        heads, scale = attention.heads, (dim // attention.heads) ** -0.5
        q, k, v = attention.qkv(block.norm1(x)).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        keys_values = _after_norm(attention.qkv.weight[dim:], block.norm1, x[:, :n_senders])
        if receivers is not None:
            rows = torch.arange(len(x), device=x.device)[:, None]
            q, x = q.transpose(1, 2)[rows, receivers].transpose(1, 2), x[rows, receivers]
        logits = scale * q @ k.mT
        if padding is not None:
            logits = logits.masked_fill(padding[:, None, None], -torch.inf)
        weights = logits.softmax(dim=-1)
        mean = weights @ v
        scores = weights[..., None] * (v[:, :, None] - mean[:, :, :, None])

        after = x + attention.proj(mean.transpose(1, 2).flatten(2))
        rest = torch.eye(dim, dtype=x.dtype, device=x.device) + _through_mlp(block, after)
        mixed = rest @ attention.proj.weight
        own = slice(None if receivers is not None else n_senders)
        from_query = scale * (scores.mT @ k[:, :, None]).transpose(1, 2)[:, own]
        query = _after_norm(attention.qkv.weight[:dim], block.norm1, x[:, own]).unflatten(2, (heads, -1))
        return cls(
            rest[:, own] + mixed[:, own] @ (from_query @ query).flatten(2, 3),
            mixed,
            keys_values,
            scale * q,
            weights[..., :n_senders],
            scores[..., :n_senders, :],
        )

    def pull(self, cotangents: Float[Tensor, "N T D n"]) -> Float[Tensor, "N S D_in n"]:
        """Cotangents of the senders from those of the receivers, which are all tokens."""
        n_heads, n = self.queries.shape[1], cotangents.shape[3]
        mean = (self.mixed.mT @ cotangents).unflatten(2, (n_heads, -1)).transpose(1, 2).contiguous()
        # Columns ride along in products over receivers.
        keys = self.queries.mT @ (self.scores @ mean).flatten(3)
        values = self.attention.mT @ mean.flatten(3)
        both = self._empty(n)
        both[:, :, 0] = keys.unflatten(3, (-1, n)).permute(0, 3, 1, 2, 4)
        both[:, :, 1] = values.unflatten(3, (-1, n)).transpose(1, 2)
        pulled = self.keys_values.mT @ both.flatten(2, 4)
        return pulled.add_(self.own.mT @ cotangents[:, : self.own.shape[1]])

    def pull_single(
        self, cotangents: Float[Tensor, "N r D c"], part: slice, tokens: Int64[Tensor, "N r"]
    ) -> Float[Tensor, "N S D_in n"]:
        """The same of a ``part`` of the receivers, at ``tokens``, where c columns are of each receiver alone."""
        (r, c), heads = cotangents.shape[1::2], self.queries.shape[1]
        mean = (self.mixed[:, part].mT @ cotangents).unflatten(2, (heads, -1)).transpose(1, 2)
        scores = self.scores[:, :, part] @ mean
        both = self._empty(r * c).unflatten(5, (r, c)).permute(0, 2, 3, 5, 1, 4, 6)  # N, 2, heads, r, S, d, c
        torch.mul(self.queries[:, :, part, None, :, None], scores[..., None, :], out=both[:, 0])
        torch.mul(self.attention[:, :, part, :, None, None], mean[:, :, :, None], out=both[:, 1])
        both = both.permute(0, 4, 1, 2, 5, 3, 6).flatten(5).flatten(2, 4)
        pulled = (self.keys_values.mT @ both).unflatten(3, (r, c))
        image, receiver = (tokens < pulled.shape[1]).nonzero(as_tuple=True)
        own = self.own[:, part].mT @ cotangents
        pulled[image, tokens[image, receiver], :, receiver] += own[image, receiver]
        return pulled.flatten(3)

    def _empty(self, n: int) -> Float[Tensor, "N S 2 heads d n"]:
        """Room for n cotangents of the senders' keys and values."""
        n_images, heads, _, senders, d = self.scores.shape
        return self.scores.new_empty(n_images, senders, 2, heads, d, n)


@dataclass(frozen=True)
class _LinearMAE:
    """The model at given images and masks as a linear map from visible patches to predicted ones.

    In the decoder tokens stand in the order [CLS], visible, hidden.

    Attributes:
        encoder: blocks, the first from patches.
        bridge: from the encoder's tokens to the decoder's.
        decoder: blocks, the last to the patches of outputs alone.
        head: from the last tokens of these patches to their predictions.
        tokens: where these patches stand.
    """

    encoder: list[_LinearBlock]
    bridge: Float[Tensor, "N T D_decoder D"]
    decoder: list[_LinearBlock]
    head: Float[Tensor, "N P ppC D_decoder"]
    tokens: Int64[Tensor, "N P"]

    @classmethod
    def at(
        cls, model: MaskedAutoencoder, images: Float[Tensor, "N C H W"], masks: Masks, patches: Int64[Tensor, " P"]
    ) -> _LinearMAE:
        kept: Intermediates = {}
        model.decode(model.encode(images, masks, kept), masks, kept)
        padding = masks.keep_padding
        if padding is not None:
            padding = torch.cat([padding.new_zeros(len(padding), 1), padding], dim=1)
        *inputs, last = _inputs(kept, "encoder", len(model.encoder))
        encoder = [_LinearBlock.at(block, x, padding) for block, x in zip(_blocks(model.encoder), inputs, strict=True)]
        embedding = model.patch_embedding.weight
        encoder[0] = replace(encoder[0], own=encoder[0].own @ embedding, keys_values=encoder[0].keys_values @ embedding)
        weight = model.decoder_embedding.weight
        if isinstance(model.bottleneck, nn.Linear):
            weight = weight @ model.bottleneck.weight
        bridge = _after_norm(weight, model.encoder_norm, last)
        if padding is not None:
            bridge = bridge.masked_fill(padding[..., None, None], 0)

        order = torch.cat([masks.ids_restore.new_zeros(len(images), 1), masks.ids_restore.argsort(dim=1) + 1], dim=1)
        rows = torch.arange(len(images), device=images.device)[:, None]
        *inputs, last = (x[rows, order] for x in _inputs(kept, "decoder", len(model.decoder)))
        tokens = 1 + masks.ids_restore[:, patches.to(images.device)]
        decoder = [
            _LinearBlock.at(
                block,
                x,
                receivers=tokens if x is inputs[-1] else None,
                n_senders=bridge.shape[1] if x is inputs[0] else None,
            )
            for block, x in zip(_blocks(model.decoder), inputs, strict=True)
        ]
        head = _after_norm(model.decoder_pred.weight, model.decoder_norm, last[rows, tokens])
        return cls(encoder, bridge, decoder, head, tokens)

    def pull(self, part: slice, within: Int64[Tensor, "P c"]) -> Float[Tensor, "N K ppC n"]:
        """∂(outputs)/∂(visible patches) for a part of the patches of outputs, and features ``within`` each."""
        patches = torch.arange(len(within))[:, None]
        cotangents = self.head[:, part][:, patches, within].mT
        cotangents = self.decoder[-1].pull_single(cotangents, part, self.tokens[:, part])
        for block in reversed(self.decoder[:-1]):
            cotangents = block.pull(cotangents)
        cotangents = self.bridge.mT @ cotangents
        for block in reversed(self.encoder):
            cotangents = block.pull(cotangents)
        return cotangents[:, 1:]


def _blocks(modules: nn.ModuleList) -> list[Block]:
    return [cast("Block", module) for module in modules]


def _inputs(kept: Intermediates, part: str, depth: int) -> list[Tensor]:
    """Tokens before each block, and after the last."""
    return [kept[f"{part}/embedded"], *(kept[f"{part}/block{i}"] for i in range(depth))]


def _after_norm(weight: Float[Tensor, "... E D"], norm: nn.LayerNorm, x: Float[Tensor, "N T D"]) -> Tensor:
    """Derivative of weight @ norm(x) by token, (N, T, E, D)."""
    unit = layer_norm(x, norm.normalized_shape, eps=norm.eps)
    std = (x.var(dim=-1, correction=0) + norm.eps).sqrt()[..., None, None]
    weight = weight * norm.weight
    weight = weight - weight.mean(dim=-1, keepdim=True)
    along = weight @ unit[..., None] / x.shape[-1]
    return (weight / std).addcmul_(along, (unit / std[..., 0])[..., None, :], value=-1)


def _through_mlp(block: Block, x: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D D"]:
    """Derivative of mlp(norm2(x)) by token."""
    first, activation, second = block.mlp
    hidden = first(block.norm2(x))
    (slope,) = torch.func.vjp(activation, hidden)[1](torch.ones_like(hidden))
    return _after_norm((second.weight * slope[..., None, :]) @ first.weight, block.norm2, x)
