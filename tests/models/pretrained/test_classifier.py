"""Classifiers of noisy images with the weights of guided-diffusion and score_sde: the peers' logits, to rounding."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models.pretrained import classifier
from models.pretrained.mapping import to_tensors, to_variables
from tests.models.pretrained.named import named_normal, named_weights

CONTRASTS, BRIGHTNESSES = np.float32([1, 20, 0.1, 1e-3]), np.float32([0.5, 0.5, 0.5, 0])

# For each peer: our network, its options, noise levels, the mapping; the first three logits of each of four images, mean
# and standard deviation of all, and x. Weights are `named_weights` of the peer's names and shapes.
PEERS = {
    # openai/guided-diffusion, guided_diffusion/unet.py at commit 22e0df8183507e13a7813f8d38d51b072ca1e67c, evaluation mode:
    # EncoderUNetModel(image_size=8, in_channels=3, model_channels=64, out_channels=7, num_res_blocks=2,
    # attention_resolutions=(2, 4), channel_mult=(0.5, 1, 1), num_head_channels=16, use_scale_shift_norm=True,
    # resblock_updown=True, pool="attention").
    "guided-diffusion": (
        "unet_classifier",
        {
            "num_classes": 7,
            "channels": 64,
            "channel_multipliers": (0.5, 1, 1),
            "blocks_per_level": 2,
            "attention_resolutions": (4, 2),
            "head_channels": 16,
        },
        np.float32([0, 37, 420, 999]),
        classifier.guided_diffusion_mapping,
        [
            [0.7501382, -0.4734011, 0.4213856],
            [0.8231528, -0.3875438, -0.04333771],
            [0.6069272, -0.1674952, 0.3704613],
            [0.6713916, -0.2570737, 0.4097908],
        ],
        (0.07635842, 0.4456995),
        named_normal("x", 4, 8, 8, 3),
    ),
    # yang-song/score_sde, models/wideresnet_noise_conditional.py at commit 0acb9e0ea3b8cccd935068cd9c657318fbc6ce4c:
    # WideResnet(blocks_per_group=2, channel_multiplier=2, num_outputs=5), sigmas 0.01, 0.3, 4 and 50, names joined by "/".
    # The last of its images is so flat that it is divided by the least deviation.
    "score_sde": (
        "wideresnet_classifier",
        {"num_classes": 5, "blocks_per_group": 2, "width": 2},
        np.log(np.float32([0.01, 0.3, 4, 50])),
        lambda network, shapes: classifier.score_sde_mapping(network),
        [
            [2.290671, -0.9208544, 3.100674],
            [2.254667, -0.4837126, 3.613355],
            [0.2307706, -0.4321295, 3.906925],
            [4.175959, -0.7650696, 4.334655],
        ],
        (1.05916, 2.418734),
        named_normal("x", 4, 8, 8, 3) * CONTRASTS[:, None, None, None] + BRIGHTNESSES[:, None, None, None],
    ),
}


@functools.cache
def imported(peer):
    """The network, the mapping, the peer's tensors and the variables made of them."""
    name, options, _, mapping, *_ = PEERS[peer]
    network = models.create(name, **options)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))
    where = mapping(network, shapes)
    theirs = to_tensors(jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes), where)
    tensors = named_weights({name: tensor.shape for name, tensor in theirs.items()})
    return network, where, tensors, to_variables(tensors, where, shapes)


@pytest.mark.parametrize("peer", PEERS)
def test_logits_are_those_of_the_peers_code(peer):
    _, options, levels, _, logits, (mean, std), x = PEERS[peer]
    network, _, _, variables = imported(peer)
    y = jax.jit(network.apply)(variables, x, levels)
    assert y.shape == (4, options["num_classes"]) and y.dtype == jnp.float32
    np.testing.assert_allclose(y[:, :3], logits, rtol=1e-4, atol=1e-4 * std)
    np.testing.assert_allclose((np.mean(y), np.std(y)), (mean, std), rtol=1e-4)


@pytest.mark.parametrize("peer", PEERS)
def test_the_import_of_an_export_is_the_identity(peer):
    _, where, tensors, variables = imported(peer)
    back = to_tensors(variables, where)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_a_file_of_guided_diffusion_is_read_and_known_for_a_classifier(tmp_path):
    network, _, tensors, variables = imported("guided-diffusion")
    (tmp_path / "x.pt").write_bytes(pickle.dumps(tensors))
    jax.tree.map(
        np.testing.assert_array_equal, classifier.read_guided_diffusion(tmp_path / "x.pt", network, 8), variables
    )
    assert classifier.is_classifier(tensors) and not classifier.is_classifier(["out.2.weight"])


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name, size, count, options",
    [
        ("wideresnet_classifier", 32, 38913242, {}),
        ("unet_classifier", 64, 65438568, {}),
        ("unet_classifier", 128, 42568040, {"channel_multipliers": (1, 1, 2, 3, 4), "blocks_per_level": 2}),
        ("unet_classifier", 256, 54096360, {"channel_multipliers": (1, 1, 2, 2, 4, 4), "blocks_per_level": 2}),
        ("unet_classifier", 512, 54448360, {"channel_multipliers": (0.5, 1, 1, 2, 2, 4, 4), "blocks_per_level": 2}),
    ],
)
def test_published_classifiers_have_as_many_parameters_as_the_peers(name, size, count, options):
    """The counts are those of the peers' own code at the commits above, with the published settings."""
    network = models.create(name, **options)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros(1))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_a_mapping_names_what_the_peer_has_not():
    with pytest.raises(ValueError, match="no classifier with norm_groups=0, only with 32"):
        classifier.guided_diffusion_mapping(models.create("unet_classifier", norm_groups=0), {})


def test_a_needless_condition_is_named():
    network, _, _, variables = imported("score_sde")
    with pytest.raises(ValueError, match=r"WideResNetClassifier: condition\['label'\] is given, but .* no condition"):
        network.apply(variables, jnp.zeros((1, 8, 8, 3)), jnp.zeros(1), {"label": jnp.zeros(1, int)})
