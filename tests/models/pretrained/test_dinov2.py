"""DINOv2 with facebookresearch's weights: the peer's class token and positions, to rounding."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.dinov2 import SIZES, DINOv2, stretched_positions
from models.pretrained import dinov2
from models.pretrained.mapping import WeightsError, to_tensors
from tests.models.pretrained.named import named_normal, named_weights

# facebookresearch/dinov2, dinov2/models/vision_transformer.py at commit b8931f7bf91576930313be2c6d6af376033b35f0:
# DinoVisionTransformer(img_size=70, patch_size=14, embed_dim=24, depth=2, num_heads=3, init_values=1.0, block_chunks=0,
# interpolate_offset=0.1, block_fn=partial(Block, attn_class=MemEffAttention)).eval() with `weights()`, for
# named_normal("x", 2, height, width, 3): every fourth of the output's numbers, the mean and the standard deviation.
PEER = {
    (70, 70, 1): (  # the 5 x 5 patches of the learned positions
        [
            [2.678169, -0.5654069, 0.256225, 0.1742538, -0.804657, -0.4737032],
            [2.698953, -0.3315147, -0.09603875, 0.7081724, -0.7789615, -0.3571365],
        ],
        (-0.0219587292522192, 0.9749768376350403),
    ),
    (56, 84, 1): (  # 4 x 6
        [
            [2.754436, -0.5708668, -0.1436113, 0.7465051, -1.144963, -0.08423194],
            [2.698509, -0.5468366, -0.159335, 0.5566462, -0.8284772, 0.02403304],
        ],
        (-0.016835978254675865, 0.9706353545188904),
    ),
    (
        70,
        70,
        1e-3,
    ): (  # `weights()` of tokens and positions times this: the first norm's epsilon is then as large as its variance
        [
            [1.345348, 0.2802708, -0.6684114, 0.2853624, -1.269336, 1.145474],
            [0.7402653, 0.8673775, -0.8872991, 0.8116105, -0.3980811, 0.7755209],
        ],
        (0.014664785005152225, 0.9689233303070068),
    ),
}
TOKENS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
NETWORK = DINOv2(width=24, depth=2, num_heads=3, position_grid=5)
APPLY = jax.jit(NETWORK.apply)


def shapes_of(network):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 14, 14, 3)))


@functools.cache
def weights():
    """The peer's tensors by name; positions are as large as the tokens, so that an error in stretching them shows."""
    zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes_of(NETWORK))
    shapes = {name: tensor.shape for name, tensor in to_tensors(zeros, dinov2.mapping(NETWORK)).items()}
    return named_weights(shapes) | {
        "pos_embed": named_normal("pos_embed", *shapes["pos_embed"]),
        "mask_token": named_normal("mask_token", 1, 24),
    }


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dinov2.pth"
    path.write_bytes(pickle.dumps(weights()))
    return path


@pytest.mark.parametrize("height, width, contrast", PEER)
def test_class_tokens_are_the_peers(height, width, contrast, file):
    expected, moments = PEER[height, width, contrast]
    faint = {name: weights()[name] * np.float32(contrast) for name in TOKENS}
    file.write_bytes(pickle.dumps(weights() | faint))
    x = named_normal("x", 2, height, width, 3)
    pool = np.asarray(APPLY(dinov2.read(file, NETWORK), x)["pool"])
    np.testing.assert_allclose(pool[:, ::4], expected, atol=1e-4)
    np.testing.assert_allclose([pool.mean(), pool.std()], moments, atol=1e-5)


def test_positions_of_518_pixels_stretch_to_224_as_the_peers():
    """Its interpolate_pos_encoding of named_normal("positions", 1, 1370, 4), at these places, and their deviation."""
    stretched = np.asarray(stretched_positions(named_normal("positions", 1, 1370, 4), 16, 16))
    expected = [-0.9750655, -0.0685747, -0.6331361, -0.598438, -0.5369403, -0.6449304, 0.3491459, 0.9999253]
    places = [0, 1, 16, 17, 100, 137, 241, 256], [0, 1, 2, 3, 0, 1, 2, 3]
    assert stretched.shape == (1, 257, 4)
    np.testing.assert_allclose(stretched[0][places], expected, atol=1e-5)
    np.testing.assert_allclose(stretched.std(), 0.8839519023895264, rtol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (20, 9), (50, 37)], ids=str)
def test_positions_are_pytorchs(shape):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    positions = named_normal("positions", 1, 1370, 4)
    grid = torch.tensor(positions[:, 1:].reshape(1, 37, 37, 4).transpose(0, 3, 1, 2))
    scale = tuple((size + 0.1) / 37 for size in shape)
    theirs = torch.nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic").numpy().transpose(0, 2, 3, 1)
    ours = stretched_positions(positions, *shape)
    np.testing.assert_allclose(ours[:, 1:], theirs.reshape(1, -1, 4), atol=3e-5)
    np.testing.assert_array_equal(ours[:, 0], positions[:, 0])


def test_the_file_is_used_up_and_comes_back(file):
    back = to_tensors(dinov2.read(file, NETWORK), dinov2.mapping(NETWORK))
    assert weights().keys() - back.keys() == {"mask_token"}
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, weights()[name])


@pytest.mark.parametrize("size, count", [("vits14", 22056576), ("vitb14", 86580480), ("vitl14", 304368640)])
def test_published_sizes_have_as_many_parameters_as_the_peers(size, count):
    """The counts are those of dinov2/hub/backbones.py's models at the commit above, with their mask token."""
    shapes = shapes_of(DINOv2(**SIZES[size]))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) + SIZES[size]["width"] == count
    paths = {tuple(key.key for key in path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]}
    assert paths == set(dinov2.mapping(DINOv2(**SIZES[size])))


def test_a_file_of_another_size_is_refused_by_name(file):
    with pytest.raises(WeightsError, match=r"of another shape: .*blocks.0.attn.proj.weight \(24, 24\), not \(48, 48\)"):
        dinov2.read(file, DINOv2(width=48, depth=2, num_heads=3, position_grid=5))
    with pytest.raises(WeightsError, match=r"missing: blocks\.2\.attn\.proj\.bias, .* and 6 more$"):
        dinov2.read(file, DINOv2(width=24, depth=3, num_heads=3, position_grid=5))
    with pytest.raises(ValueError, match="patches of 14 pixels need"):
        shapes = jax.ShapeDtypeStruct((1, 20, 28, 3), jnp.float32)
        jax.eval_shape(NETWORK.apply, shapes_of(NETWORK), shapes)
