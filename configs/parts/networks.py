"""Networks of papers. Options that a function leaves out have the defaults in `models/`, which are published values."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def use(config: ConfigDict, name: str, **options: Any) -> None:
    """Replaces the network and all its options."""
    config.model = ConfigDict({"name": name} | options)


def ncsnpp(config: ConfigDict, *, blocks: int = 4, embedding: str = "fourier") -> None:
    """NCSN++ up to 64 px; `deep` has 8 blocks."""
    use(
        config,
        "ncsnpp",
        channels=128,
        channel_multipliers=(1, 2, 2, 2),
        blocks_per_level=blocks,
        attention_resolutions=(16,),
        dropout=0.1,
        fir=True,
        fir_kernel=(1, 3, 3, 1),
        skip_rescale=True,
        resblock_type="biggan",
        progressive="none",
        progressive_input="residual",
        progressive_combine="sum",
        embedding=embedding,
        fourier_scale=16.0,
        init_scale=0.0,
    )


def ddpmpp(config: ConfigDict, *, blocks: int = 4) -> None:
    """DDPM++: NCSN++ without FIR filters and without the input pyramid, with DDPM's embedding."""
    ncsnpp(config, blocks=blocks, embedding="positional")
    config.model.fir = False
    config.model.progressive_input = "none"


def ncsnpp_256(config: ConfigDict) -> None:
    """NCSN++ for 256 px: input and output pyramids, fewer blocks, no dropout."""
    ncsnpp(config, blocks=2)
    config.model.channel_multipliers = (1, 1, 2, 2, 2, 2, 2)
    config.model.progressive = "output_skip"
    config.model.progressive_input = "input_skip"
    config.model.dropout = 0.0


def ncsnpp_1024(config: ConfigDict) -> None:
    """NCSN++ for 1024 px, with few channels at full resolution."""
    ncsnpp_256(config)
    config.model.channels = 16
    config.model.channel_multipliers = (1, 2, 4, 8, 16, 32, 32, 32)
    config.model.blocks_per_level = 1


def ddpm(config: ConfigDict) -> None:
    """DDPM's U-Net for 32 px as in score_sde: one attention per level on the way up."""
    use(
        config,
        "ddpm",
        channels=128,
        channel_multipliers=(1, 2, 2, 2),
        blocks_per_level=2,
        attention_resolutions=(16,),
        dropout=0.1,
        up_attention="level",
    )


def ddpm_256(config: ConfigDict) -> None:
    """DDPM's U-Net for 256 px, without dropout."""
    ddpm(config)
    config.model.channel_multipliers = (1, 1, 2, 2, 4, 4)
    config.model.dropout = 0.0


def ncsn(config: ConfigDict) -> None:
    """NCSN, with parameters of the norms for each noise level."""
    use(config, "ncsn", channels=128, channel_multipliers=(1, 2, 2, 2), dilations=(1, 1, 2, 4))


def ncsnv2(config: ConfigDict) -> None:
    """NCSNv2 up to 64 px."""
    use(config, "ncsnv2", channels=128, channel_multipliers=(1, 2, 2, 2), dilations=(1, 1, 2, 4))


def ncsnv2_128(config: ConfigDict) -> None:
    """NCSNv2 for 128 px: one more stage, and wider last stages."""
    use(config, "ncsnv2", channels=128, channel_multipliers=(1, 2, 2, 4, 4), dilations=(1, 1, 1, 2, 4))


def edm_ddpmpp(config: ConfigDict) -> None:
    """EDM's DDPM++: three levels of equal width, conditioned on augmentation labels."""
    ddpmpp(config)
    config.model.channel_multipliers = (2, 2, 2)
    config.model.augment_features = 9
    config.model.dropout = 0.13


def edm_ncsnpp(config: ConfigDict) -> None:
    """EDM's NCSN++: three levels of equal width, conditioned on augmentation labels."""
    ncsnpp(config)
    config.model.channel_multipliers = (2, 2, 2)
    config.model.augment_features = 9
    config.model.dropout = 0.13


# Options by image size; the defaults are in `adm`.
ADM_SIZES: Mapping[int, Mapping[str, Any]] = {
    64: {"channel_multipliers": (1, 2, 3, 4), "blocks_per_level": 3, "dropout": 0.1},
    128: {"channels": 256, "channel_multipliers": (1, 1, 2, 3, 4), "num_heads": 4, "head_channels": 0},
    256: {"channels": 256, "channel_multipliers": (1, 1, 2, 2, 4, 4)},
    512: {"channels": 256, "channel_multipliers": (0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0)},
}


def adm(config: ConfigDict, size: int) -> None:
    """ADM for ImageNet, class-conditional."""
    common = {"channels": 192, "blocks_per_level": 2, "head_channels": 64, "dropout": 0.0}
    use(config, "adm", **(common | ADM_SIZES[size]), attention_resolutions=(32, 16, 8), num_classes=1000)


EDM2_CHANNELS: Mapping[str, int] = {"xxs": 64, "xs": 128, "s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}


def edm2(config: ConfigDict, size: str) -> None:
    """EDM2 for ImageNet, in a size from xxs to xxl."""
    use(
        config,
        "edm2",
        channels=EDM2_CHANNELS[size],
        num_classes=1000,
        dropout=0.0 if size in ("xxs", "xs", "s") else 0.1,
    )


DIT_SIZES: Mapping[str, Mapping[str, int]] = {
    "s": {"width": 384, "depth": 12, "num_heads": 6},
    "b": {"width": 768, "depth": 12, "num_heads": 12},
    "l": {"width": 1024, "depth": 24, "num_heads": 16},
    "xl": {"width": 1152, "depth": 28, "num_heads": 16},
}


def dit(config: ConfigDict, size: str, patch_size: int) -> None:
    """DiT for latents of ImageNet (table 1 of the paper); label 1000 means no class."""
    use(config, "dit", **DIT_SIZES[size], patch_size=patch_size, num_classes=1000, learned_variance=True)
