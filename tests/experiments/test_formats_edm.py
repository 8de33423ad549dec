"""Pickles of EDM and EDM2: the network and the preconditioning that they hold, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from configs import base
from experiments import load_pretrained
from experiments.errors import UserError
from experiments.loading import formats
from experiments.loading.formats import EDM_NETWORKS, PRECONDITIONINGS
from models.pretrained import edm2
from models.pretrained.mapping import to_tensors
from tests.experiments.test_formats import equal
from tests.models.families import randomized
from tests.models.pretrained.opcodes import call, dictionary, module, name, value, whole


def pickled(class_name, attribute, inner, settings, tensors, **state):
    """The file of a network `inner` within its preconditioning, with its tensors by name."""
    tree = {}
    for key, tensor in tensors.items():
        *parts, leaf = key.split(".")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
        node[leaf] = tensor

    def modules(node):
        return {part: opcodes(child, "Part") for part, child in node.items() if isinstance(child, dict)}

    def opcodes(node, kind, **more):
        parameters = {leaf: value(child) for leaf, child in node.items() if not isinstance(child, dict)}
        return module(kind, _parameters=dictionary(**parameters), _modules=dictionary(**modules(node)), **more)

    network = opcodes(tree, inner, _init_kwargs=value(settings))
    outer = {key: value(item) for key, item in state.items()}
    return whole(dictionary(ema=module(class_name, _modules=dictionary(**{attribute: network}), **outer)))


SONG_UNET = {
    "img_resolution": 8, "in_channels": 1, "out_channels": 1, "label_dim": 3, "model_channels": 8, "channel_mult": [1, 2],
    "num_blocks": 1, "attn_resolutions": [4], "embedding_type": "fourier", "channel_mult_noise": 2,
    "encoder_type": "residual", "resample_filter": [1, 3, 3, 1],
}  # fmt: skip


CONSTANTS = {"sigma_data": 0.5, "beta_d": 19.9, "beta_min": 0.1, "M": 1000, "C_1": 0.001, "C_2": 0.008}
U = [0.04993258, 0.7378706, 12.80727]
DHARIWAL = {
    "img_resolution": 8, "in_channels": 1, "out_channels": 1, "label_dim": 3, "model_channels": 64, "channel_mult": [1],
    "num_blocks": 1, "attn_resolutions": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "preconditioning, inner, settings",
    [
        ("EDMPrecond", "SongUNet", SONG_UNET),
        ("VPPrecond", "SongUNet", SONG_UNET),
        ("VEPrecond", "SongUNet", SONG_UNET),
        ("EDMPrecond", "DhariwalUNet", DHARIWAL),
        ("iDDPMPrecond", "DhariwalUNet", DHARIWAL | {"out_channels": 2}),
    ],
)
def test_a_pickle_of_edm_gives_its_network_and_its_preconditioning(tmp_path, preconditioning, inner, settings):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), with the published coefficients of each.

    iDDPM's sigmas are u[975], u[600] and u[50] of iDDPMPrecond, training/networks.py of NVlabs/edm at commit 008a4e5316.
    """
    _, from_settings, layout, _ = EDM_NETWORKS[inner]
    network = from_settings(settings)
    variables = randomized(
        jax.eval_shape(
            network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), {"label": jnp.zeros(1, int)}
        )
    )
    tensors = to_tensors(variables, layout(network, variables, 8))
    of_no_weight = {"enc.8x8_conv.resample_filter": np.ones(1)}
    (tmp_path / "x.pkl").write_bytes(
        pickled(preconditioning, "model", inner, settings, tensors | of_no_weight, **CONSTANTS)
    )
    run = load_pretrained(tmp_path / "x.pkl", "edm")
    equal(run, variables)

    iddpm = preconditioning == "iDDPMPrecond"
    sigma, labels = np.float32(U if iddpm else [0.05, 1.0, 20.0]), jnp.arange(3)
    y = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32) * sigma[:, None, None, None]
    skip, out, scale = {
        "EDMPrecond": (0.25 / (sigma**2 + 0.25), 0.5 * sigma / np.sqrt(sigma**2 + 0.25), 1 / np.sqrt(sigma**2 + 0.25)),
        "VPPrecond": (1, -sigma, 1 / np.sqrt(1 + sigma**2)),
        "VEPrecond": (1, sigma, 1),
        "iDDPMPrecond": (1, -sigma, 1 / np.sqrt(1 + sigma**2)),
    }[preconditioning]
    t_vp = (np.sqrt(0.1**2 + 2 * 19.9 * np.log(1 + sigma.astype(float) ** 2)) - 0.1) / 19.9
    level = {
        "EDMPrecond": np.log(sigma) / 4,
        "VPPrecond": 999 * t_vp,
        "VEPrecond": np.log(sigma / 2),
        "iDDPMPrecond": np.float32([999 - 975, 999 - 600, 999 - 50]),
    }[preconditioning]

    def pixels(coefficient):
        return np.broadcast_to(np.float32(coefficient), 3)[:, None, None, None]

    raw = jax.jit(network.apply)(variables, pixels(scale) * y, jnp.asarray(level, jnp.float32), {"label": labels})
    denoiser = run.denoiser.replace(condition={"label": labels})
    t = denoiser.sde.time_at_log_snr(-2 * jnp.log(sigma))
    if iddpm:  # the table is at steps of the chain alone
        np.testing.assert_allclose(t, [0.025, 0.4, 0.95], rtol=1e-4)
    got = jax.jit(type(denoiser).__call__)(denoiser, denoiser.sde.alpha(t)[:, None, None, None] * y, t)
    expected = pixels(skip) * y + pixels(out) * raw
    np.testing.assert_allclose(got, expected, atol=2e-3 * float(jnp.abs(expected).max()))


def test_other_constants_of_a_preconditioning_are_refused(tmp_path):
    for preconditioning, constant in (("iDDPMPrecond", "C_2"), ("VPPrecond", "beta_d")):
        (tmp_path / "x.pkl").write_bytes(
            pickled(preconditioning, "model", "SongUNet", SONG_UNET, {}, **{constant: 0.5})
        )
        with pytest.raises(UserError, match=f"its preconditioning has {constant}=0.5, which has no counterpart here"):
            load_pretrained(tmp_path / "x.pkl", "edm")


def test_a_pickle_of_edm2_gives_its_network(tmp_path, monkeypatch):
    """Its spread of data too; what its learned uncertainty is made of is left out."""
    every = formats.module_tensors
    others = {name: np.ones(1) for name in edm2.UNCERTAINTY}
    monkeypatch.setattr(formats, "module_tensors", lambda network: every(network) | others)
    settings = {
        "img_resolution": 8, "img_channels": 1, "label_dim": 3, "model_channels": 8, "channel_mult": [1, 2],
        "num_blocks": 1, "attn_resolutions": [4], "channels_per_head": 8,
    }  # fmt: skip
    network = edm2.from_settings(settings)
    variables = randomized(
        jax.eval_shape(
            network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), {"label": jnp.zeros(1, int)}
        )
    )
    tensors = to_tensors(variables, edm2.mapping(network, 8))
    (tmp_path / "x.pkl").write_bytes(pickled("Precond", "unet", "UNet", settings, tensors, sigma_data=0.7))
    run = load_pretrained(tmp_path / "x.pkl", "edm2")
    equal(run, variables)
    assert run.config.parameterization.sigma_data == 0.7
    assert isinstance(run.denoiser.parameterization, sde_lib.EDMPreconditioning) and run.medium.has_pixels
    with pytest.raises(UserError, match="its network is Precond: only EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond"):
        load_pretrained(tmp_path / "x.pkl", "edm")


FAULTS = {
    "truncated": (whole(dictionary(ema=value({})))[:-3], "it is truncated or not a file of PyTorch"),
    "no network": (whole(dictionary(ema=value({}))), "it does not hold the network `ema`"),
    "hostile": (whole(call(name("os", "system"), value("true"))), "it asks for os.system"),
    "another network": (
        pickled("EDMPrecond", "model", "UNet", DHARIWAL, {}, **CONSTANTS),
        "its network is UNet: only SongUNet, DhariwalUNet",
    ),
    "another weight": (
        pickled("EDMPrecond", "model", "DhariwalUNet", DHARIWAL, {"odd": np.ones(1)}, **CONSTANTS),
        "not of this network: odd",
    ),
    "another setting": (
        pickled("EDMPrecond", "model", "DhariwalUNet", DHARIWAL | {"quux": 1}, {}, **CONSTANTS),
        "DhariwalUNet: quux has no counterpart here",
    ),
    "no settings": (
        pickled("EDMPrecond", "model", "DhariwalUNet", {}, {}, **CONSTANTS),
        "it is not laid out as edm is (KeyError: 'out_channels')",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_file_is_one_line_and_nothing_is_written(fails, tmp_path, fault):
    broken, message = FAULTS[fault]
    path, workdir = tmp_path / "file", tmp_path / "run"
    path.write_bytes(broken)
    assert message in fails("import", f"--from={path}", "--format=edm", f"--workdir={workdir}")
    assert not workdir.exists()


MADE = {
    "EDMPrecond": (
        {"sigma_data": 0.7}, {"name": "edm", "t_max": 80.0}, {"name": "edm", "sigma_data": 0.7}, 0.002
    ),
    "VPPrecond": ({}, {"name": "vp"}, {"name": "noise", "time_scale": 999.0}, None),
    "VEPrecond": (
        {}, {"name": "ve", "sigma_min": 0.02, "sigma_max": 100.0},
        {"name": "score", "scale_input": False, "sigma_scale": 0.5}, None,
    ),
    "iDDPMPrecond": (
        {"M": 500}, {"name": "iddpm", "num_steps": 500, "t_max": 0.992},
        {"name": "noise", "time_scale": 500.0, "time_offset": -1.0}, 1 / 500,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_a_preconditioning_has_the_range_of_noise_levels_of_its_class(kind):
    """sigma_min and sigma_max of training/networks.py and generate.py of NVlabs/edm; VP's betas are our defaults."""
    state, process, parameterization, t_min = MADE[kind]
    found = PRECONDITIONINGS[kind](state)
    assert (found["sde"], found["parameterization"]) == (process, parameterization)
    for section in ("training", "sampling", "evaluation"):
        assert found.get(section, {}).get("t_min") == t_min
    vp = base.get_config().sde
    assert (vp.beta_min, vp.beta_max, vp.t_max) == (0.1, 20.0, 1.0)


@pytest.mark.parametrize(
    "kind, published",
    [("VPPrecond", {"beta_d": 19.9, "beta_min": 0.1, "M": 1000}), ("iDDPMPrecond", {"C_1": 0.001, "C_2": 0.008})],
)
def test_each_published_constant_may_be_stated_and_no_other(kind, published):
    PRECONDITIONINGS[kind](published)
    for constant, known in published.items():
        with pytest.raises(
            ValueError, match=f"^its preconditioning has {constant}={2 * known}, which has no .* only {known}$"
        ):
            PRECONDITIONINGS[kind](published | {constant: 2 * known})
    assert PRECONDITIONINGS["iDDPMPrecond"]({})["sde"]["num_steps"] == 1000
