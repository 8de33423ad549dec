"""diffusers' networks beside ours in `benchmark --suite=networks`; needs the `interop` extra.

Each has the shape of one of ours and runs as its documentation has it: eager, in float32, on JAX's device: the CPU, on as
many threads, or the first NVIDIA GPU, where both libraries multiply in TF32.

- `unet`: `UNet2DModel` with the config.json that `export --format=diffusers` writes (DDPM's and ADM's are settings of it).
- `dit`: `DiTTransformer2DModel`.
- `ncsnpp`: `UNet2DModel` of the blocks SkipDownBlock2D, SkipUpBlock2D and so on: NCSN++ with `input_skip` and
  `output_skip`, as the published google/ncsnpp-celebahq-256 has it.

Source: https://github.com/huggingface/diffusers/tree/main/src/diffusers/models, version 0.42.
"""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from models.pretrained import diffusers as diffusers_format

DEVICES = {"cpu": "cpu", "gpu": "cuda"}  # torch's device, by JAX's platform


def runs_on(platform: str) -> bool:
    """Whether torch and diffusers are installed, torch with that platform of JAX."""
    if not all(importlib.util.find_spec(package) for package in ("torch", "diffusers")):
        return False
    import torch

    return platform == "cpu" or (platform in DEVICES and torch.cuda.is_available())


def _unet(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    from diffusers import UNet2DModel

    config = diffusers_format.to_config(network, diffusers_format.Facts(shape[:2], shape[2]))
    return UNet2DModel(**{key: value for key, value in config.items() if not key.startswith("_")})


def _ncsnpp(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    from diffusers import UNet2DModel

    levels = len(network.channel_multipliers)
    attends = ["Attn" * (shape[0] // 2**level in network.attention_resolutions) for level in range(levels)]
    return UNet2DModel(
        sample_size=shape[0],
        in_channels=shape[2],
        out_channels=shape[2],
        time_embedding_type="fourier",
        down_block_types=tuple(f"{attend}SkipDownBlock2D" for attend in attends),
        up_block_types=tuple(f"{attend}SkipUpBlock2D" for attend in reversed(attends)),
        block_out_channels=tuple(network.channels * multiplier for multiplier in network.channel_multipliers),
        layers_per_block=network.blocks_per_level,
        mid_block_scale_factor=math.sqrt(2),
        attention_head_dim=None,
        norm_eps=1e-6,
    )


def _dit(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=network.num_heads,
        attention_head_dim=network.width // network.num_heads,
        in_channels=shape[2],
        out_channels=shape[2],
        num_layers=network.depth,
        sample_size=shape[0],
        patch_size=network.patch_size,
        num_embeds_ada_norm=network.num_classes,
        norm_eps=network.mlp_norm_epsilon,
    )


MAKERS: dict[str, Callable[[nn.Module, tuple[int, int, int]], Any]] = {"unet": _unet, "ncsnpp": _ncsnpp, "dit": _dit}


class Peer:
    """diffusers' network of the shape of one of ours, with what is measured of it.

    Args:
        kind: a key of `MAKERS`.
        network: ours.
        shape: of one input, (H, W, C).
        batch: number of inputs.
        threads: that torch may use.
        device: torch's name of where it runs.
    """

    def __init__(
        self, kind: str, network: nn.Module, shape: tuple[int, int, int], batch: int, threads: int, device: str = "cpu"
    ):
        import torch

        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("high")  # as JAX's default has it; the CPU has but one precision
        torch.set_default_device(device)
        torch.manual_seed(0)
        self.network = MAKERS[kind](network, shape).to(device)
        height, width, channels = shape
        self._x, self._target = torch.randn(2, batch, channels, height, width)
        self._time = torch.ones(batch)
        self._labels = torch.zeros(batch, dtype=torch.long) if network.num_classes else None
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(trained, lr=1e-4, fused=True)

    @property
    def name(self) -> str:
        """The class."""
        return type(self.network).__name__

    @property
    def parameters(self) -> int:
        """How many weights there are, with the frequencies of a Fourier embedding, which are not trained."""
        return sum(p.numel() for p in self.network.parameters())

    def flops(self) -> int:
        """Of a forward pass of one image, counted as `flops.flops` does."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False)
        # The counter does not know the fused attention of CPUs; that of plain matrix products makes as many.
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
            self._call(self._x[:1], self._time[:1], None if self._labels is None else self._labels[:1])
        return counter.get_total_flops()

    def forward(self) -> None:
        """A forward pass of the batch, to its end."""
        import torch

        self.network.eval()
        with torch.inference_mode():
            self._call(self._x, self._time, self._labels)
        self._wait()

    def step(self) -> None:
        """A training step on the batch, to its end: mean squared error, gradient, Adam."""
        self.network.train()
        self._optimizer.zero_grad()
        loss = ((self._call(self._x, self._time, self._labels) - self._target) ** 2).mean()
        loss.backward()
        self._optimizer.step()
        self._wait()

    @property
    def memory(self) -> int | None:
        """The most bytes held on the device so far; None on the CPU, where it is the process's."""
        import torch

        return torch.cuda.max_memory_allocated() if self._x.is_cuda else None

    def _wait(self):
        import torch

        if self._x.is_cuda:
            torch.cuda.synchronize()

    def _call(self, x, time, labels):
        return self.network(x, time, class_labels=labels, return_dict=False)[0]
