"""What a masked autoencoder is: architecture, masking and objective."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

from spatialmae.masks import check_mask_ratio, n_visible
from spatialmae.setting import check_choice, check_count, check_known, check_number, setting, whole_numbers_to_float

Masking = Literal["fixed", "bernoulli"]
LossOn = Literal["hidden", "all"]


@dataclass(frozen=True, kw_only=True)
class MAEConfig:
    """Architecture, masking and objective of a :class:`~spatialmae.model.MaskedAutoencoder`.

    An autoencoder (AE) of the same architecture is ``mask_ratio=0, loss_on="all"`` with a ``bottleneck``; a denoising
    one (DAE) has ``noise_std > 0`` besides. Without a bottleneck a token wider than its patch can copy it.

    Raises:
        ValueError: a value is impossible, or two do not go together; the message names the field and a hint.
    """

    image_size: int | tuple[int, int] = setting(32, "side of a square image in px, or (height, width)")
    patch_size: int = setting(4, "side of a patch, which is one token, in px; must tile the image")
    channels: int = setting(3, "channels of an image")
    encoder_dim: int = setting(192, "width of the encoder, a multiple of 4 and of its heads")
    encoder_depth: int = setting(12, "blocks of the encoder")
    encoder_heads: int = setting(3, "attention heads of the encoder")
    decoder_dim: int = setting(192, "width of the decoder, a multiple of 4 and of its heads")
    decoder_depth: int = setting(4, "blocks of the decoder")
    decoder_heads: int = setting(3, "attention heads of the decoder")
    mlp_ratio: float = setting(4.0, "width of a block's MLP over that of the block")
    mask_ratio: float = setting(0.75, "share of the mask units that is hidden, in [0, 1)")
    mask_unit: int | None = setting(
        None, "side in px of what is masked together, a multiple of the patch; null: the patch"
    )
    masking: Masking = setting("fixed", "hide a fixed count of units, or each independently (`bernoulli`)")
    loss_on: LossOn = setting("hidden", "squared error over hidden patches (MAE) or over all (the linear theory's)")
    loss_margin: int = setting(0, "px next to visible ones that the loss on hidden patches leaves out (claim B11)")
    loss_margin_control: bool = setting(
        False, "leave out as many hidden pixels at random instead: the control of `loss_margin`"
    )
    norm_pix_loss: bool = setting(False, "normalise each target patch by its own mean and variance")
    noise_std: float = setting(0.0, "σ of Gaussian noise on the encoder's input, in units of the normalised image")
    bottleneck: int | None = setting(None, "numbers kept of each encoded token; null: encoder_dim, no bottleneck")
    layer_norm_eps: float = setting(1e-6, "ε of the layer norms")

    _n_visible: ClassVar[int | None]  # no field, since it follows from them; each configuration sets its own

    def __post_init__(self) -> None:
        self._check_values()
        self._normalise()
        check_mask_ratio(self.mask_ratio)
        height, width = self.image_hw
        unit = self.mask_unit_px
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"patch_size: {self.patch_size} does not tile {height}×{width} px; use a divisor")
        if unit % self.patch_size or height % unit or width % unit:
            raise ValueError(
                f"mask_unit: {unit} px must be a multiple of patch_size={self.patch_size} and tile "
                f"{height}×{width} px; change it"
            )
        for part in ("encoder", "decoder"):
            dim, heads = getattr(self, f"{part}_dim"), getattr(self, f"{part}_heads")
            if dim % 4 or dim % heads:
                raise ValueError(f"{part}_dim: {dim} is not a multiple of 4 and of {part}_heads={heads}; change either")
            if int(dim * self.mlp_ratio) < 1:
                raise ValueError(f"mlp_ratio: {self.mlp_ratio} leaves nothing of {part}_dim={dim}; raise it")
        if self.norm_pix_loss and self.patch_dim == 1:
            raise ValueError(
                "norm_pix_loss: a patch of one number has no variance; set it to false or enlarge the patch"
            )
        # Counted once: each forward pass asks for it, and torch.compile cannot trace exact fractions.
        object.__setattr__(self, "_n_visible", self._count_visible())
        self._check_objective()

    def _check_values(self) -> None:
        sizes = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,) * 2
        if len(sizes) != 2:
            raise ValueError(f"image_size: {self.image_size!r} is neither a side nor (height, width); give one of them")
        for size in sizes:
            check_count("image_size", size)
        for part in ("encoder", "decoder"):
            for name in ("dim", "depth", "heads"):
                check_count(f"{part}_{name}", getattr(self, f"{part}_{name}"))
        for name in ("patch_size", "channels"):
            check_count(name, getattr(self, name))
        for name in ("mask_unit", "bottleneck"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_number("mlp_ratio", self.mlp_ratio)
        check_number("layer_norm_eps", self.layer_norm_eps)
        check_number("noise_std", self.noise_std, positive=False)
        check_number("mask_ratio", self.mask_ratio, positive=False)
        check_choice("masking", self.masking, get_args(Masking))
        check_choice("loss_on", self.loss_on, get_args(LossOn))
        check_choice("norm_pix_loss", self.norm_pix_loss, (True, False))
        check_count("loss_margin", self.loss_margin, least=0)
        check_choice("loss_margin_control", self.loss_margin_control, (True, False))

    def _normalise(self) -> None:
        """Give settings that mean the same the same values, so that one model is one configuration."""
        whole_numbers_to_float(self)
        if self.image_size == (self.image_hw[0],) * 2:
            object.__setattr__(self, "image_size", self.image_hw[0])
        if self.mask_unit == self.patch_size:
            object.__setattr__(self, "mask_unit", None)

    def _count_visible(self) -> int | None:
        """Number of patches that a fixed-count mask leaves visible; None: masks are independent."""
        if self.masking != "fixed":
            return None
        visible_units = n_visible(
            self.n_units, self.mask_ratio, "patch_size" if self.mask_unit is None else "mask_unit"
        )
        return visible_units * (self.mask_unit_px // self.patch_size) ** 2

    def _check_objective(self) -> None:
        if self.loss_on == "hidden" and self.realised_mask_ratio == 0:
            raise ValueError(
                f"loss_on: mask_ratio={self.mask_ratio} hides none of {self.n_units} units; set it to all, "
                "or raise mask_ratio"
            )
        if self.loss_margin and self.loss_on == "all":
            raise ValueError("loss_margin: the loss on all patches has no boundary; set it to 0, or loss_on to hidden")
        if 2 * self.loss_margin >= self.mask_unit_px:
            raise ValueError(
                f"loss_margin: {self.loss_margin} leaves nothing of a hidden unit of {self.mask_unit_px} px; lower it"
            )
        if self.loss_margin_control and not self.loss_margin:
            raise ValueError("loss_margin_control: there is no loss_margin to control; give one")

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width in px."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_hw
        return height // self.patch_size, width // self.patch_size

    @property
    def n_patches(self) -> int:
        """L, the number of patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_dim(self) -> int:
        """p·p·C, the numbers in a patch."""
        return self.patch_size**2 * self.channels

    @property
    def mask_unit_px(self) -> int:
        """Side in px of what is masked together."""
        return self.patch_size if self.mask_unit is None else self.mask_unit

    @property
    def unit_grid(self) -> tuple[int, int]:
        """Rows and columns of mask units."""
        height, width = self.image_hw
        return height // self.mask_unit_px, width // self.mask_unit_px

    @property
    def n_units(self) -> int:
        """Number of mask units of an image."""
        return self.unit_grid[0] * self.unit_grid[1]

    @property
    def n_visible(self) -> int:
        """Number of patches that a fixed-count mask leaves visible.

        Raises:
            ValueError: masks are independent, and the number differs between images.
        """
        if self._n_visible is None:
            raise ValueError("masking: bernoulli leaves no fixed number of patches visible; use realised_mask_ratio")
        return self._n_visible

    @property
    def realised_mask_ratio(self) -> float:
        """Share of the patches that is hidden: after rounding by a fixed count, on average by independent masks."""
        return self.mask_ratio if self.masking == "bernoulli" else 1 - self.n_visible / self.n_patches

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        values = asdict(self)
        return values | {"image_size": list(self.image_size)} if isinstance(self.image_size, tuple) else values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MAEConfig:
        """From JSON-able fields.

        Raises:
            ValueError: a field is unknown, or a value is impossible.
        """
        check_known(cls, values)
        size = values.get("image_size", cls.image_size)
        return cls(**values | {"image_size": tuple(size) if isinstance(size, list) else size})
