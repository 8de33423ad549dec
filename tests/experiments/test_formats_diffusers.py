"""Models of diffusers: folders and single files become the config that they mean; ours become folders of diffusers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
import sde_lib
from experiments import factory, load_pretrained
from experiments.config import files as config
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.loading.formats import FORMATS
from experiments.loading.runs import Run
from models.pretrained import diffusers_ncsnpp, files
from models.pretrained.mapping import to_tensors
from tests.experiments.test_formats import equal, tiny
from tests.experiments.tiny import ROOT
from tests.models.families import randomized
from tests.models.pretrained.test_diffusers_ncsnpp import SMALL

pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[pretrained]'")

INDEX = {"name": "noise", "time_scale": 1000.0, "time_offset": -1.0}
UNET = {"channels": "8", "channel_multipliers": "1,2", "blocks_per_level": "1", "attention_resolutions": "4"}
UNET |= {"norm_groups": "4", "num_heads": "1"}
DIT = {"width": "16", "depth": "2", "num_heads": "2", "num_classes": "3", "learned_variance": "true"}
DIT |= {"position_span": "4", "frequencies": "ddpm", "block_embeddings": "true", "mlp_norm_epsilon": "1e-5"}
NETWORKS = {"ddpm": UNET, "dit": DIT}


def settings(name, process, **options):
    changes = {"model.name": name} | {f"model.{key}": value for key, value in options.items() or NETWORKS[name].items()}
    return config.load(f"{ROOT}/configs/digits.py:{process}", changes.items())


def exported(path, name="ddpm", **scheduler):
    """A folder that was exported from random weights, with another scheduler; and the weights."""
    loaded, variables = tiny(name, "ddpm", **NETWORKS[name])
    loaded.parameterization.update(INDEX)
    FORMATS["diffusers"].write(path, Run(None, Experiment(loaded), 0, variables))
    if scheduler:
        (path / "scheduler_config.json").write_text(json.dumps(scheduler))
    return variables


def pipeline(path, name="ddpm", part="unet"):
    """The same as a pipeline has it: the network in a folder of its own, the scheduler in another."""
    variables = exported(path / part, name)
    (path / "scheduler").mkdir()
    (path / part / "scheduler_config.json").rename(path / "scheduler" / "scheduler_config.json")
    return variables


@pytest.mark.parametrize("name", NETWORKS)
def test_an_import_of_an_export_is_the_identity(tmp_path, name):
    variables = exported(tmp_path / "model", name)
    run = load_pretrained(tmp_path / "model", "diffusers")
    equal(run, variables)
    before, after = (factory.network(c) for c in (settings(name, "ddpm"), run.config))
    for option in models.options(run.config.model.name):
        assert getattr(after, option) == getattr(before, option), option
    published = {"beta_first": 1e-4, "beta_last": 0.02}
    assert run.config.sde.to_dict() == settings(name, "ddpm").sde.to_dict() | {"sigma_max": 50.0} | published


@pytest.mark.parametrize(
    "schedule, alpha_bar",
    [
        ("linear", np.cumprod(1 - np.linspace(1e-3, 0.1, 50))),
        ("scaled_linear", np.cumprod(1 - np.linspace(1e-3**0.5, 0.1**0.5, 50) ** 2)),
    ],
)
def test_the_scheduler_decides_process_and_parameterization(tmp_path, schedule, alpha_bar):
    """Where diffusers asks at index i, our Denoiser asks the network at i too, at diffusers' noise level."""
    scheduler = {"num_train_timesteps": 50, "beta_start": 1e-3, "beta_end": 0.1, "prediction_type": "v_prediction"}
    exported(tmp_path / "model", beta_schedule=schedule, **scheduler)
    denoiser = load_pretrained(tmp_path / "model", "diffusers").denoiser
    assert isinstance(denoiser.parameterization, sde_lib.VPrediction)
    index = np.array([0, 20, 49])
    t = (index + 1) / 50
    np.testing.assert_allclose(denoiser.sde.alpha(jnp.asarray(t)) ** 2, alpha_bar[index], rtol=1e-5)
    np.testing.assert_allclose(denoiser.parameterization._noise_level(t), index, atol=1e-9)


def test_the_rescaled_betas_of_a_chain_of_another_length_are_exported(tmp_path):
    """diffusers takes beta_start and beta_end as they are, so an import gets the exported process back."""
    loaded, variables = tiny("ddpm", "ddpm", **NETWORKS["ddpm"])
    loaded.parameterization.update(INDEX | {"time_scale": 250.0})
    loaded.sde.num_steps = 250
    FORMATS["diffusers"].write(tmp_path / "model", Run(None, Experiment(loaded), 0, variables))
    scheduler = json.loads((tmp_path / "model" / "scheduler_config.json").read_text())
    assert (scheduler["beta_start"], scheduler["beta_end"]) == (4e-4, 0.08)
    back = load_pretrained(tmp_path / "model", "diffusers").denoiser.sde
    np.testing.assert_array_equal(back.log_snr_knots, factory.sde(loaded, 0.01).log_snr_knots)
    assert 150 < back.noise_to_signal(1.0) < 190


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"beta_schedule": "sigmoid"},
            "beta_schedule='sigmoid' has no counterpart here: only linear, scaled_linear, sq",
        ),
        ({"prediction_type": "sample_v"}, "prediction_type='sample_v' has no counterpart"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas has no counterpart here: only schedules by name"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True has no counterpart here: only False"),
        (
            {"_class_name": "ScoreSdeVeScheduler"},
            "_class_name='ScoreSdeVeScheduler' has no counterpart here: only DDIMSch",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_schedulers_without_a_counterpart_are_refused_by_their_key(tmp_path, change, message):
    exported(tmp_path / "model", **change)
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path / "model", "diffusers")


def test_ncsnpp_of_diffusers_has_score_sdes_process_on_images_in_minus_one_to_one(tmp_path):
    """x = 2 y - 1 has twice the sigma of y in [0, 1], which the network is told; its output is sigma times y's score."""
    described = SMALL | {"block_out_channels": [16, 16], "sample_size": 8}
    described |= {f"{way}_block_types": [f"Skip{way.title()}Block2D"] * 2 for way in ("down", "up")}
    network, _ = diffusers_ncsnpp.from_config(described)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))
    variables = jax.tree.map(np.asarray, randomized(shapes))
    tensors = to_tensors(variables, diffusers_ncsnpp.mapping(network, variables))
    (tmp_path / "config.json").write_text(json.dumps(described))
    files.write_safetensors(tmp_path / "diffusion_pytorch_model.safetensors", tensors, {})
    scheduler = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 380, "snr": 0.075, "sampling_eps": 2e-5}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
    run = load_pretrained(tmp_path, "diffusers")
    equal(run, variables)
    assert (run.config.sampling.t_min, run.config.sampling.snr) == (2e-5, 0.075)
    sigma = np.float32([0.02, 7])
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    denoiser = run.denoiser
    t = denoiser.sde.time_at_log_snr(-2 * jnp.log(2 * sigma))
    np.testing.assert_allclose(t, np.log(sigma / 0.01) / np.log(380 / 0.01), rtol=1e-5)
    score = np.asarray(jax.jit(network.apply)(variables, x, jnp.log(sigma))) / sigma[:, None, None, None]  # of y
    got = 2 * jax.jit(type(denoiser).score)(denoiser, x, t)
    np.testing.assert_allclose(got, score, atol=1e-4 * score.std())

    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    with pytest.raises(
        UserError, match="_class_name='DDPMScheduler' has no counterpart here: only ScoreSdeVeScheduler"
    ):
        load_pretrained(tmp_path, "diffusers")


def test_a_folder_lacks_nothing_and_is_of_a_network_that_is_known(tmp_path):
    exported(tmp_path / "model")
    described = json.loads((tmp_path / "model" / "config.json").read_text())
    for text, message in {
        json.dumps(
            described | {"_class_name": "UNet2DConditionModel"}
        ): "_class_name='UNet2DConditionModel' has no counter",
        json.dumps(described)[:-9]: "config.json is truncated or not JSON",
        "[]": "config.json holds no JSON object",
        json.dumps(described | {"block_out_channels": 8}): "it is not laid out as diffusers is",
    }.items():
        (tmp_path / "model" / "config.json").write_text(text)
        with pytest.raises(UserError, match=message):
            load_pretrained(tmp_path / "model", "diffusers")
    (tmp_path / "model" / "scheduler_config.json").unlink()
    with pytest.raises(UserError, match="has no scheduler/scheduler_config"):
        load_pretrained(tmp_path / "model", "diffusers")


@pytest.mark.parametrize("name, part", [("ddpm", "unet"), ("dit", "transformer")])
def test_a_pipeline_and_its_single_file_are_one_model(tmp_path, name, part):
    """With an autoencoder beside it the network is of latents, whatever their channels."""
    variables = pipeline(tmp_path, name, part)
    weights = tmp_path / part / "diffusion_pytorch_model.safetensors"
    whole, single = load_pretrained(tmp_path, "diffusers"), load_pretrained(weights, "diffusers")
    equal(whole, variables)
    equal(single, variables)
    assert whole.config.to_dict() == single.config.to_dict()
    assert whole.medium.has_pixels
    (tmp_path / "vqvae").mkdir()
    assert not load_pretrained(tmp_path, "diffusers").medium.has_pixels


@pytest.mark.parametrize("name", NETWORKS)
def test_a_single_file_without_its_config_takes_one_of_ours(tmp_path, name):
    variables = exported(tmp_path / "model", name)
    path = (tmp_path / "model" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(UserError, match=r"needs its config\.json beside it, or --config=FILE"):
        load_pretrained(path, "diffusers")
    loaded = settings(name, "ve")
    run = load_pretrained(path, "diffusers", loaded)
    equal(run, variables)
    assert run.config.sde.name == "ve"
    with pytest.raises(UserError, match="a folder says its architecture; leave --config out"):
        load_pretrained(tmp_path / "model", "diffusers", loaded)
    with pytest.raises(UserError, match="'edm2' is no network of diffusers: only unet, ddpm, adm, dit, ncsnpp"):
        load_pretrained(path, "diffusers", settings("edm2", "ve", channels="8"))


def test_weights_of_another_network_are_named_and_truncated_ones_leave_nothing(fails, tmp_path):
    exported(tmp_path / "model", "dit")
    path = tmp_path / "model" / "diffusion_pytorch_model.safetensors"
    tensors, metadata = files.read_safetensors(path)
    name = "transformer_blocks.1.norm1.linear.bias"
    changed = {k: v for k, v in tensors.items() if k != "proj_out_2.bias"} | {
        name: tensors[name][1:],
        "odd": np.zeros(1),
    }
    files.write_safetensors(path, changed, metadata)
    message = rf"missing: proj_out_2\.bias; not of this network: odd; of another shape: {name} \(95,\), not \(96,\)"
    with pytest.raises(UserError, match=message):
        load_pretrained(path, "diffusers")
    path.write_bytes(path.read_bytes()[:-9])
    assert "it is truncated" in fails("import", f"--from={path}", "--format=diffusers", f"--workdir={tmp_path}/run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name, process, options, message",
    [
        (
            "dit",
            "ddpm",
            DIT | {"block_embeddings": "false"},
            "but block_embeddings=False",
        ),
        ("dit", "ddpm", {k: v for k, v in DIT.items() if k != "num_classes"}, "num_classes=0"),
        ("dit", "ddpm", DIT | {"frequencies": "dit"}, "no network with frequencies='dit', only with 'ddpm'"),
        ("edm2", "ddpm", {"channels": "8"}, "model.name='edm2' is no network of diffusers"),
        ("ddpm", "vp", UNET, "is no scheduler of diffusers"),
    ],
)
def test_only_models_that_diffusers_has_are_exported_to_it(tmp_path, name, process, options, message):
    loaded = settings(name, process, **options)
    with pytest.raises(ValueError, match=message):
        FORMATS["diffusers"].write(tmp_path / "out", Run(None, Experiment(loaded), 0, {}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name, schedule", [("ddpm", "scaled_linear"), ("dit", "linear")])
def test_diffusers_reads_what_is_exported_and_gives_the_same_noise(tmp_path, name, schedule):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[interop]'")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[interop]'")
    folder = tmp_path / "model"
    exported(folder, name, num_train_timesteps=1000, beta_schedule=schedule)
    run = load_pretrained(folder, "diffusers")
    kind = {"ddpm": diffusers.UNet2DModel, "dit": diffusers.DiTTransformer2DModel}[name]
    peer, scheduler = kind.from_pretrained(folder).eval(), diffusers.DDPMScheduler.from_pretrained(folder)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    index, labels = np.array([0, 300, 999]), np.array([0, 2, 3])
    t = jnp.asarray((index + 1) / 1000, jnp.float32)
    condition = {"class_labels": torch.from_numpy(labels)} if name == "dit" else {}
    with torch.no_grad():
        output = peer(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(index), **condition).sample
    expected = output[:, :1].permute(0, 2, 3, 1).numpy()  # without the variance
    got = run.denoiser.replace(condition={"label": jnp.asarray(labels)} if condition else None).noise(x, t)
    np.testing.assert_allclose(got, expected, atol=1e-4 * expected.std())
    alpha_bar = scheduler.alphas_cumprod.numpy()[index]
    np.testing.assert_allclose(run.denoiser.sde.alpha(t) ** 2, alpha_bar, rtol=1e-4)
