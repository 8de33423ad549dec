"""Import of the published classifiers of noisy images of guided-diffusion and score_sde.

Sources: https://github.com/openai/guided-diffusion/blob/main/guided_diffusion/unet.py (EncoderUNetModel);
https://github.com/yang-song/score_sde/blob/main/models/wideresnet_noise_conditional.py (flax).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.classifier import UNetClassifier, WideResNetClassifier
from models.pretrained import files
from models.pretrained.guided_diffusion import RESIDUAL, by_head
from models.pretrained.mapping import DENSE, POINTWISE_1D, SAME, Layout, Weight, to_variables
from models.pretrained.mapping import Path as WeightPath
from models.pretrained.unet import Layer, Place, down, weights

# From kernels of 1x1 convolutions with one spatial axis, (out, in, 1), to kernels of dense layers, (in, out).
DENSE_1D = Layout(lambda a: a[..., 0].T, lambda a: a.T[..., None])


POSITIONS = "out.2.positional_embedding"  # in the attention pooling, which only guided-diffusion's classifiers have


def is_classifier(tensor_names: Iterable[str]) -> bool:
    """Returns whether a file with these tensors is a classifier of guided-diffusion, not a U-Net."""
    return POSITIONS in tensor_names


def read_guided_diffusion(path: Path, network: UNetClassifier, image_size: int, num_channels: int = 3) -> Any:
    """Reads the variables of a classifier from a .pt file of guided-diffusion, such as 256x256_classifier.pt.

    Args:
        path: the file.
        network: the classifier.
        image_size: height and width of the images in pixels.
        num_channels: channels of the images.

    Raises:
        ValueError: the file is broken or belongs to another network; the message names the weights.
        OSError: the file cannot be read.
    """
    image = jnp.zeros((1, image_size, image_size, num_channels))
    shapes = jax.eval_shape(network.init, jax.random.key(0), image, jnp.zeros(1))
    return to_variables(files.read(path), guided_diffusion_mapping(network, shapes), shapes)


def guided_diffusion_mapping(network: UNetClassifier, shapes: Any) -> dict[WeightPath, Weight]:
    """Returns the mapping of the weights of guided-diffusion's EncoderUNetModel, built with the flags of its README.

    Modules are numbered as in the U-Net. The channels of queries, keys and values are ordered by head, except in the
    attention pooling.

    Args:
        network: the classifier.
        shapes: its variables, or their shapes (`jax.eval_shape` of its init with images of the published size).

    Raises:
        ValueError: guided-diffusion has no such network.
    """
    if network.norm_groups != 32:
        raise ValueError(f"guided-diffusion has no classifier with norm_groups={network.norm_groups}, only with 32")
    modules = shapes["params"]

    def attention(name):
        heads = modules[name]["norm"]["scale"].shape[0] // network.head_channels
        qkv = Layer("qkv", by_head(POINTWISE_1D, heads), by_head(Layout(np.asarray, np.asarray), heads))
        return {"norm": Layer("norm"), "qkv": qkv, "out": Layer("proj_out", POINTWISE_1D)}

    places = {
        "conv_in": Place("input_blocks.0.0"),
        "embedding_0": Place("time_embed.0"),
        "embedding_1": Place("time_embed.2"),
        "middle_0": Place("middle_block.0", RESIDUAL),
        "middle_attention": Place("middle_block.1", attention("middle_attention")),
        "middle_1": Place("middle_block.2", RESIDUAL),
        "norm_out": Place("out.0"),
        "pool": Place("out.2", {"qkv": Layer("qkv_proj", DENSE_1D), "out": Layer("c_proj", DENSE_1D)}),
    }
    for number, (level, step) in enumerate(down(network), start=1):
        name = f"down_{level}_{step}"
        places[name] = Place(f"input_blocks.{number}.0", RESIDUAL)
        if f"{name}_attention" in modules:
            places[f"{name}_attention"] = Place(f"input_blocks.{number}.1", attention(f"{name}_attention"))
    positions = {"params": dict(modules, pool={k: v for k, v in modules["pool"].items() if k != "positions"})}
    mapping = weights(positions, places)
    mapping["params", "pool", "positions"] = Weight(POSITIONS, DENSE)
    return mapping


def score_sde_mapping(network: WideResNetClassifier) -> dict[WeightPath, Weight]:
    """Returns the mapping of the weights of score_sde's WideResnet (JAX), named by path such as "Dense_0/kernel"."""
    mapping = {("params", "fourier", "frequencies"): Weight("GaussianFourierProjection_0/W")}

    def add(ours, theirs, *leaves):
        for leaf in leaves:
            mapping["params", *ours.split("/"), leaf] = Weight(f"{theirs}/{leaf}", SAME)

    add("embedding_0", "Dense_0", "kernel", "bias")
    add("embedding_1", "Dense_1", "kernel", "bias")
    add("conv_in", "init_conv", "kernel")
    for group in range(3):
        for i in range(network.blocks_per_group):
            ours, theirs = f"block_{group}_{i}", f"WideResnetGroup_{group}/WideResnetBlock_{i}"
            add(f"{ours}/norm_in", f"{theirs}/init_bn", "scale", "bias")
            add(f"{ours}/conv_in", f"{theirs}/conv1", "kernel")
            add(f"{ours}/embedding", f"{theirs}/Dense_0", "kernel", "bias")
            add(f"{ours}/norm_out", f"{theirs}/bn_2", "scale", "bias")
            add(f"{ours}/conv_out", f"{theirs}/conv2", "kernel")
    add("norm_out", "pre-pool-bn", "scale", "bias")
    add("out", "Dense_2", "kernel", "bias")
    return mapping
