"""Published feature networks, including their preprocessing.

    network = load("efficientnet-lite0")
    features = network(images)["pool"]          # images uint8 (N, H, W, C), features float32 (N, d)

| name | weights | `pool` | `spatial` | `logits` | Frechet distance in these features |
|---|---|---|---|---|---|
| efficientnet-lite0 | part of an installed package | 1280 | 1372 | 1000 | named after the features; not a FID |
| inception | pt_inception-2015-12-05-6726825d.pth, file of the user | 2048 | 2023 | 1008 | FID of pytorch-fid |
| inception-tf1 | same as inception | 2048 | 2023 | 1008 | FID of the original code, ADM's evaluator and EDM |
| inception-clean | same as inception | 2048 | 2023 | 1008 | FID of clean-fid |
| dinov2-vits14, -vitb14, -vitl14 | dinov2_vitl14_pretrain.pth etc. | 384, 768, 1024 | | | FD-DINOv2 of dgm-eval |

The three variants of Inception differ in the preprocessing, and their values must not be mixed:

- inception: bilinear without antialiasing to 299 x 299, x / 127.5 - 1. pytorch-fid/src/pytorch_fid/inception.py.
- inception-tf1: bilinear with the positions of TensorFlow 1, which are off by up to half a pixel, (x - 128) / 128. This
  is the preprocessing of the graph classify_image_graph_def.pb (guided-diffusion/evaluations/evaluator.py) and of the
  detector of EDM and StyleGAN (clean-fid's mode "legacy_tensorflow").
- inception-clean: Pillow's bicubic filter, antialiased, on floats, (x - 128) / 128. clean-fid/cleanfid/resize.py.

`spatial` features are for the sFID (Nash et al. 2021, https://arxiv.org/abs/2103.03841), `logits` for the Inception
Score.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UserError, unknown_name
from experiments.metrics import resizing
from models.dinov2 import SIZES, DINOv2
from models.efficientnet import EfficientNetLite0
from models.inception import InceptionV3
from models.pretrained import dinov2, efficientnet, inception

Features = dict[str, jax.Array]
CHANNELS = (1, 3)  # channels of images: grey or RGB


class Kind(NamedTuple):
    """Definition of a feature network.

    Attributes:
        module: returns the network, which maps preprocessed images (B, size, size, 3) to a dictionary of features.
        read: reads the variables from a weight file.
        preprocess: maps uint8 RGB (B, H, W, 3) to the network's input.
        preprocessing: exact description of the preprocessing, different for any two variants.
        digits: first digits of the published SHA-256 of the weight file; "" if none is published.
        packaged_file: returns the weight file of an installed package; None if the user must name the file.
        published_as: name and location of the published weight file.
    """

    module: Callable[[], Any]
    read: Callable[[Path], Any]
    preprocess: Callable[[jax.Array], jax.Array]
    preprocessing: str
    digits: str
    packaged_file: Callable[[], Path] | None
    published_as: str


IMAGENET_MEAN, IMAGENET_STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def _efficientnet_input(images):
    return (resizing.pil(images, efficientnet.SIZE, "bicubic").astype(jnp.float32) - 127) / 128


def _inception_input(images):
    return 2 * resizing.bilinear(images.astype(jnp.float32) / 255, inception.SIZE) - 1


def _inception_tf1_input(images):
    return (resizing.bilinear_tf1(images, inception.SIZE) - 128) / 128


def _inception_clean_input(images):
    return (resizing.pil_float(images, inception.SIZE, "bicubic") - 128) / 128


def _dinov2_input(images):
    pixels = resizing.pil(images, dinov2.SIZE, "bicubic").astype(jnp.float32)
    return (pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD


def _inception(preprocess, preprocessing):
    published_as = f"{inception.FILE} of pytorch-fid's releases"
    return Kind(InceptionV3, inception.read, preprocess, preprocessing, "6726825d", None, published_as)


def _dinov2(size):
    network = DINOv2(**SIZES[size])
    return Kind(
        lambda: network,
        lambda path: dinov2.read(path, network),
        _dinov2_input,
        f"Pillow bicubic to 224 x 224 (antialiased, bytes), (x / 255 - {IMAGENET_MEAN}) / {IMAGENET_STD}",
        "",
        None,
        f"dinov2_{size}_pretrain.pth that facebookresearch/dinov2's README links to",
    )


KINDS = {
    "efficientnet-lite0": Kind(
        EfficientNetLite0,
        efficientnet.read,
        _efficientnet_input,
        "Pillow bicubic to 224 x 224 (antialiased, bytes), (x - 127) / 128",
        "57934424",
        efficientnet.packaged_file,
        f"{efficientnet.FILE} of the package {efficientnet.PACKAGE.replace('_', '-')}",
    ),
    "inception": _inception(
        _inception_input, "bilinear to 299 x 299 as PyTorch's (half-pixel centres, not antialiased), x / 127.5 - 1"
    ),
    "inception-tf1": _inception(
        _inception_tf1_input, "bilinear to 299 x 299 as TensorFlow 1's (pixel i at i, not antialiased), (x - 128) / 128"
    ),
    "inception-clean": _inception(
        _inception_clean_input, "Pillow bicubic to 299 x 299 (antialiased, floats, clipped), (x - 128) / 128"
    ),
} | {f"dinov2-{size}": _dinov2(size) for size in SIZES}
DEFAULT = "efficientnet-lite0"


def names() -> list[str]:
    """Returns the names that `load` accepts."""
    return sorted(KINDS)


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A feature network with weights: `network(images)` for arrays of any length, `apply` for use in compiled programs.

    Attributes:
        name: one of `names()`.
        preprocessing: description of the preprocessing. Features of two networks are comparable if `name`,
            `preprocessing` and `sha256` are equal.
        sha256: SHA-256 of the weight file, hexadecimal.
        as_published: whether the SHA-256 matches the published one; None if none is published.
        apply: apply(variables, images) maps uint8 (B, H, W, C), C 1 or 3, to a dictionary of float32 arrays:
            `pool` (B, d); `spatial` (B, s) and `logits` (B, k) if the network has them. Pure, so it can be jitted,
            mapped and sharded. The features of an image do not depend on the other images.
        variables: the weights, a pytree of numpy arrays.
        batch_size: images per call of the network.
    """

    name: str
    preprocessing: str
    sha256: str
    as_published: bool | None
    apply: Callable[[Any, jax.Array], Features] = field(repr=False)
    variables: Any = field(repr=False)
    batch_size: int = 32

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the features of all images, computed on one device.

        All batches have the same size: the last batch is padded with repeated images. One program is compiled per image
        shape.

        Args:
            images: uint8 (N, H, W, C) with C = 1 or 3 and N at least 1.

        Returns:
            `pool` (N, d) float32; `spatial` (N, s) and `logits` (N, k) if the network has them.

        Raises:
            UserError: the images have another dtype or shape, or there are none.
        """
        check_images(images)
        batches = []
        for start in range(0, len(images), self.batch_size):
            indices = np.minimum(np.arange(start, start + self.batch_size), len(images) - 1)
            features = self._compiled(self._on_device, images[indices])
            batches.append({name: np.asarray(array)[: len(images) - start] for name, array in features.items()})
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def dimensions(self) -> dict[str, int]:
        """Returns the number of features of each kind, such as {"pool": 1280, ...}."""
        image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
        return {name: array.shape[1] for name, array in jax.eval_shape(self.apply, self.variables, image).items()}

    @cached_property
    def _compiled(self):
        return jax.jit(self.apply)

    @cached_property
    def _on_device(self):
        return jax.device_put(self.variables)


def load(name: str = DEFAULT, weights_path: str | Path | None = None, batch_size: int = 32) -> FeatureNetwork:
    """Loads the feature network `name` with the weights of a file.

    Args:
        name: one of `names()`.
        weights_path: published weight file, in PyTorch or safetensors format; None selects the file of an installed
            package, if there is one. No code in the file is executed.
        batch_size: images per call of the network.

    Raises:
        UserError: the name is unknown, or the file is missing, damaged, unsafe or of another network (the message names
            the weights that differ).
    """
    if name not in KINDS:
        raise unknown_name("features", name, KINDS)
    kind = KINDS[name]
    path = _file(name, kind, weights_path)
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        variables = kind.read(path)
    except (ValueError, OSError, ImportError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{name}: cannot read weights from {path}: {reason}") from error
    published = sha256.startswith(kind.digits) if kind.digits else None
    apply = apply_of(kind)
    return FeatureNetwork(name, kind.preprocessing, sha256, published, apply, variables, batch_size)


def check_images(images: np.ndarray) -> None:
    """Checks that images are uint8 (N, H, W, C) with C = 1 or 3 and N at least 1.

    Raises:
        UserError: they are not.
    """
    shape = np.shape(images)
    if getattr(images, "dtype", None) != np.uint8 or len(shape) != 4 or shape[3] not in CHANNELS or 0 in shape:
        dtype = getattr(images, "dtype", type(images).__name__)
        raise UserError(f"features need images uint8 (N, H, W, 1 or 3), N at least 1; these are {dtype} {shape}")


def rgb(images: jax.Array) -> jax.Array:
    """Repeats grey images (..., 1) to RGB (..., 3); returns images (..., 3) unchanged."""
    return jnp.broadcast_to(images, (*images.shape[:-1], 3))


def apply_of(kind: Kind) -> Callable[[Any, jax.Array], Features]:
    """Returns the pure function (variables, uint8 images (B, H, W, 1 or 3)) -> features, including preprocessing."""
    network = kind.module()

    def apply(variables, images):
        return network.apply(variables, kind.preprocess(rgb(images)))

    return apply


def _file(name: str, kind: Kind, weights_path: str | Path | None) -> Path:
    if weights_path is not None:
        return Path(weights_path)
    if kind.packaged_file is None:
        raise UserError(f"{name}: its weights are in no installed package; name the file {kind.published_as}")
    try:
        return kind.packaged_file()
    except FileNotFoundError as error:
        raise UserError(f"{name}: {error}") from error
