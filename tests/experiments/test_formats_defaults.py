"""What is taken where a file of a published model leaves something out, and which of several files is read."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import experiments
from experiments.cli import export as export_command
from experiments.errors import UserError
from experiments.factory.experiment import Experiment
from experiments.loading import formats, formats_diffusers, pretrained
from experiments.loading.model_config import chain, model_config, smallest_time
from models import UNet, options
from tests.experiments.tiny import fake_run, tiny_config
from tests.models.pretrained.test_diffusers import CIFAR10


def test_a_scheduler_that_says_nothing_is_ddpms():
    """1,000 steps of betas from 1e-4 to 0.02, of which the noise is predicted."""
    found = formats_diffusers._chain({})
    assert found["sde"] == {"name": "ddpm", "num_steps": 1000, "t_max": 1.0, "beta_first": 1e-4, "beta_last": 0.02}
    assert found["parameterization"] == {"name": "noise", "time_scale": 1000.0, "time_offset": -1.0}
    assert found["loss"] == {"weighting": "noise", "times": "discrete", "discrete_levels": 1000}
    assert found["sampling"] == {"t_min": 1e-3, "sampler": "ddim", "times": "uniform", "steps": 50}
    assert found["training"] == found["evaluation"] == {"t_min": 1e-3}


@pytest.mark.parametrize(
    "said, ours",
    [
        ({"prediction_type": "sample"}, ("ddpm", "data")),
        ({"prediction_type": "epsilon"}, ("ddpm", "noise")),
        ({"prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}, ("scaled_linear", "v")),
        ({"beta_schedule": "squaredcos_cap_v2"}, ("iddpm", "noise")),
        ({"beta_schedule": "linear", "trained_betas": None, "rescale_betas_zero_snr": False}, ("ddpm", "noise")),
    ],
)
def test_schedules_and_predictions_have_their_names(said, ours):
    found = formats_diffusers._chain(said)
    assert (found["sde"]["name"], found["parameterization"]["name"]) == ours
    assert found["loss"]["weighting"] == ours[1]
    assert ("beta_first" in found["sde"]) == (ours[0] != "iddpm")


@pytest.mark.parametrize("name", formats_diffusers.SCHEDULERS)
def test_schedulers_that_differ_in_how_they_sample_say_the_same_process(name):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[interop]'")
    assert hasattr(diffusers, name)
    assert formats_diffusers._chain({"_class_name": name}) == formats_diffusers._chain({})


def test_the_last_steps_of_a_cosine_are_left_out():
    """EDM starts its sampler at step 992 of iDDPM's 1,000."""
    found = chain("iddpm", 1000)
    assert found["sde"] == {"name": "iddpm", "num_steps": 1000, "t_max": 0.992}
    assert found["loss"]["discrete_levels"] == 992
    assert chain("iddpm", 250, "v")["sde"]["t_max"] == 248 / 250
    assert chain("ddpm", 250)["sde"]["t_max"] == 1 and chain("ddpm", 250)["training"]["t_min"] == 1 / 250
    assert smallest_time(0.25) == {key: {"t_min": 0.25} for key in ("training", "sampling", "evaluation")}


def test_a_variance_exploding_scheduler_that_says_nothing_is_score_sdes():
    """sigma of images in [0, 1] from 0.01 to 1348: twice that here."""
    found = formats_diffusers._variance_exploding({"_class_name": "ScoreSdeVeScheduler"})
    assert found["sde"] == {"name": "ve", "sigma_min": 0.02, "sigma_max": 2696.0}
    assert found["parameterization"] == {"name": "score", "scale_input": False, "sigma_scale": 0.5}
    assert found["sampling"] == {"t_min": 1e-5, "snr": 0.15} and found["loss"] == {
        "weighting": "score",
        "times": "uniform",
    }
    assert found["training"] == found["evaluation"] == {"t_min": 1e-5}
    with pytest.raises(ValueError, match="only ScoreSdeVeScheduler"):
        formats_diffusers._variance_exploding({})


@pytest.mark.parametrize(
    "names, first",
    [
        (("a/x", "b/x", "x"), "a/x"),
        (("b/x", "x"), "b/x"),
        (("x",), "x"),
    ],
)
def test_the_first_of_the_known_files_is_read(tmp_path, names, first):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert formats_diffusers._first(tmp_path, ("a/x", "b/x", "x")) == tmp_path / first
    with pytest.raises(ValueError, match=f"the folder {tmp_path.name} has no c/x and no y"):
        formats_diffusers._first(tmp_path, ("c/x", "y"))


def test_a_pipeline_has_its_network_before_its_own_config():
    assert formats_diffusers.MODEL_FILES == ("unet/config.json", "transformer/config.json", "config.json")
    assert formats_diffusers.SCHEDULER_FILES == ("scheduler/scheduler_config.json", "scheduler_config.json")
    assert [name.rpartition(".")[2] for name in formats_diffusers.WEIGHT_FILES] == ["safetensors", "bin"]
    assert formats_diffusers.AUTOENCODERS == ("vae", "vqvae")


@pytest.mark.parametrize(
    "text, message", [("[1]", "a.json holds no JSON object"), ("{", "a.json is truncated or not JSON")]
)
def test_a_description_is_an_object(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        formats_diffusers._json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "channels, latents, source",
    [
        (1, False, "npz:images.npz"),
        (3, False, "npz:images.npz"),
        (3, True, "latents"),
        (4, False, "latents"),
        (2, False, "latents"),
    ],
)
def test_a_model_of_other_than_gray_or_colour_images_is_of_latents(channels, latents, source):
    network = UNet(channels=48)
    found = model_config(network, "unet", 24, channels, latents=latents, sde={"name": "ve"}, sampling={"rho": 5.0})
    assert found.data.source == source
    assert (found.data.image_size, found.data.num_channels) == (24, channels)
    assert found.model.to_dict() == {"name": "unet"} | options("unet") | {"channels": 48}
    assert (found.sde.name, found.sampling.rho) == ("ve", 5.0)


@pytest.mark.parametrize("classes", [None, ("a", "b")])
def test_an_export_holds_the_config_the_step_and_the_names(monkeypatch, classes):
    written = []
    monkeypatch.setattr(formats.files, "write_safetensors", lambda *given: written.append(given))
    stored = {"class_names": ["a", "b"], "class_order": "text", "summary": "no"}
    workdir = SimpleNamespace(read_data=lambda: stored)
    run = fake_run(
        config=tiny_config(), step=40, class_names=classes, workdir=workdir, variables={"params": {"w": np.ones(2)}}
    )
    formats._write_own("path", run)
    ((path, tensors, metadata),) = written
    assert path == "path" and list(tensors) == ["params/w"]
    assert metadata["step"] == "40" and json.loads(metadata["config"])["model"]["channels"] == 8
    expected = {"class_names": ["a", "b"], "class_order": "text"} if classes else None
    assert (json.loads(metadata["classes"]) if "classes" in metadata else None) == expected


@pytest.mark.parametrize(
    "stored, message",
    [
        ('{"class_names": "ab"}', "no texts as names"),
        ('{"class_names": ["a", 1]}', "no texts as names"),
        ("[]", "no texts as names"),
        ('{"class_names": ["a"], "class_order": "odd"}', "class_order='odd': only natural, text"),
    ],
)
def test_names_in_a_file_are_texts_in_a_known_order(monkeypatch, stored, message):
    monkeypatch.setattr(formats.files, "read_safetensors_metadata", lambda path: {"classes": stored})
    with pytest.raises(ValueError, match=message):
        formats._read_own_classes("path")
    for good in ({}, {"class_names": ["a"]}, {"class_names": ["b", "a"], "class_order": "natural"}):
        text = {"classes": json.dumps(good | {"other": 1})}
        monkeypatch.setattr(formats.files, "read_safetensors_metadata", lambda path, text=text: text)
        assert formats._read_own_classes("path") == good
    monkeypatch.setattr(formats.files, "read_safetensors_metadata", lambda path: {})
    assert formats._read_own_classes("path") == {}


def test_formats_ask_for_a_config_where_their_files_do_not_say_it():
    needing = {name for name, kind in formats.FORMATS.items() if kind.needs_config}
    taking = {name for name, kind in formats.FORMATS.items() if kind.takes_config}
    assert needing == {"score_sde", "score_sde_jax", "guided_diffusion", "guided_diffusion_64"}
    assert taking == {"diffusers", "dit"}
    assert {name for name, kind in formats.FORMATS.items() if kind.write} == set(export_command.FORMATS)
    assert {name for name, kind in formats.FORMATS.items() if kind.read_classes} == {"ornstein"}


@pytest.mark.parametrize("length, shown", [(2000, "x" * 2000), (2001, "x" * 2000 + "..."), (3, "xxx")])
def test_messages_from_damaged_files_are_short_and_one_line(length, shown):
    assert pretrained._one_line(ValueError("x" * length)) == shown
    assert pretrained._one_line(ValueError("a\nb\x00c\x1bd")) == "a b c d"


@pytest.mark.parametrize(
    "error, message",
    [
        (ValueError("bad"), "--from={0}: bad"),
        (ImportError("no package"), "--from={0}: no package"),
        (OSError("disk"), "--from={0}: disk"),
        (AttributeError("x"), "--from={0}: it is not laid out as edm is (AttributeError: x)"),
        (KeyError("x"), "--from={0}: it is not laid out as edm is (KeyError: 'x')"),
        (IndexError("x"), "--from={0}: it is not laid out as edm is (IndexError: x)"),
        (TypeError("x"), "--from={0}: it is not laid out as edm is (TypeError: x)"),
    ],
)
def test_what_a_reader_raises_is_one_line(monkeypatch, tmp_path, error, message):
    def fails(path, config):
        raise error

    monkeypatch.setitem(formats.FORMATS, "edm", formats.Format(fails))
    with pytest.raises(UserError) as told:
        pretrained.read(tmp_path, "edm")
    assert str(told.value) == message.format(tmp_path)
    with pytest.raises(UserError, match="its files say their architecture; leave --config out"):
        pretrained.read(tmp_path, "edm", tiny_config())
    with pytest.raises(UserError, match="there is no such file or folder"):
        pretrained.read(tmp_path / "none", "edm")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"sampling__sampler": "heum"}, "sampling.sampler='heum' is unknown"),
        ({"sampling__ema": "power:0.3"}, "sampling.ema='power:0.3' is unknown"),
        ({"model__head_channels": 3}, "head_channels"),
    ],
)
def test_a_config_that_came_with_a_model_can_be_sampled_from(monkeypatch, tmp_path, changes, said):
    (tmp_path / "model").touch()
    monkeypatch.setitem(
        formats.FORMATS, "edm", formats.Format(lambda path, config: (tiny_config(**changes), {"w": np.ones(2)}))
    )
    with pytest.raises(UserError) as told:
        pretrained.read(tmp_path / "model", "edm")
    assert said in str(told.value)


def test_what_is_exported_chooses_no_average(monkeypatch, tmp_path):
    written = []
    monkeypatch.setitem(
        formats.FORMATS, "edm", formats.Format(None, write=lambda path, run: written.append((path, run)))
    )
    config = tiny_config(training__ema="warmup,power:0.1", sampling__ema="power:0.1")
    config.sampling.ema_std = 0.2
    run = pretrained.Run(None, Experiment(config), 40, {"w": 1})
    pretrained.export_run(run, tmp_path / "new" / "out", "edm")
    ((path, exported),) = written
    assert path == tmp_path / "new" / "out" and path.parent.is_dir()
    assert (exported.config.sampling.ema, exported.config.sampling.ema_std) == ("", 0.0)
    assert (exported.step, exported.variables) == (40, {"w": 1})
    assert (config.sampling.ema, config.sampling.ema_std) == ("power:0.1", 0.2)


def test_notebooks_open_runs_and_models_with_all_that_they_say(monkeypatch):
    monkeypatch.setattr("experiments.loading.runs.load_run", lambda *given, **named: (given, named))
    monkeypatch.setattr("experiments.loading.pretrained.load_pretrained", lambda *given: given)
    assert experiments.load_run("a", "config", ema="power:0.1", ema_std=0.2) == (
        ("a", "config"), {"ema": "power:0.1", "ema_std": 0.2},
    )  # fmt: skip
    assert experiments.load_run("a") == (("a", None), {})
    assert experiments.load_pretrained("a", "edm", "config") == ("a", "edm", "config")


PLAIN = CIFAR10 | {"down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4}


@pytest.mark.parametrize(
    "changes, size, channels, said",
    [
        ({}, (32, 32), 3, None), ({"sample_size": [16, 24]}, (16, 24), 3, None),
        ({"in_channels": 1, "out_channels": 1}, (32, 32), 1, None), ({"out_channels": 6}, (32, 32), 3, None),
        ({"sample_size": None}, None, None, "config.json: sample_size=None is no size of images"),
        ({"in_channels": 6}, None, None, "config.json: images to condition on are joined to its input"),
        ({"out_channels": 4}, None, None, "config.json: images to condition on are joined to its input"),
    ],
)  # fmt: skip
def test_a_unet_has_a_size_of_images_and_makes_as_many_channels_as_it_sees(changes, size, channels, said):
    """Or twice as many, of which the second half is the variance."""
    if said is None:
        name, network, *found = formats_diffusers._unet(PLAIN | changes)
        assert (name, *found) == ("unet", size, channels)
        assert network.learned_variance == ("out_channels" in changes and channels == 3)
        return
    with pytest.raises(ValueError, match=f"^{said}"):
        formats_diffusers._unet(PLAIN | changes)


@pytest.mark.parametrize("size, fits", [((16, 16), True), ((16, 8), False), ((8, 16), False)])
def test_a_transformer_of_diffusers_is_of_square_images(monkeypatch, size, fits):
    monkeypatch.setattr(formats_diffusers.dit, "to_diffusers_config", lambda *given: given)
    config = tiny_config(data__num_channels=3)
    config.data.image_size = size
    if fits:
        assert formats_diffusers._described_dit("network", config) == ("network", 3, 16)
        return
    with pytest.raises(ValueError, match=f"has no network of images of {size[0]}x{size[1]}, only of square ones"):
        formats_diffusers._described_dit("network", config)


@pytest.mark.parametrize(
    "changes, fits",
    [({}, True), ({"time_scale": 999.0}, False), ({"time_offset": 0.0}, False), ({"name": "score"}, False)],
)
def test_a_scheduler_of_diffusers_is_of_a_network_that_sees_the_index(changes, fits):
    config = tiny_config("ddpm")
    config.parameterization.update({"name": "v", "time_scale": 1000.0, "time_offset": -1.0} | changes)
    if fits:
        assert formats_diffusers._scheduler(config) == {
            "_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4,
            "beta_end": 0.02, "prediction_type": "v_prediction",
        }  # fmt: skip
        return
    with pytest.raises(
        ValueError, match=r"is no scheduler of diffusers: it needs ddpm, scaled_linear, iddpm, and a netwo"
    ):
        formats_diffusers._scheduler(config)


def test_a_file_of_weights_in_a_pipeline_has_its_scheduler_beside_its_folder(monkeypatch, tmp_path):
    """In the folder of a U-Net or of a transformer; anywhere else it is beside the file."""
    read = []
    monkeypatch.setattr(formats_diffusers, "_json", lambda path: read.append(path) or {"_class_name": "none"})
    for part in ("unet", "transformer", "other"):
        folder = tmp_path / part
        beside = folder if part == "other" else tmp_path
        (beside / "scheduler").mkdir(parents=True)
        folder.mkdir(exist_ok=True)
        scheduler = beside / "scheduler" / "scheduler_config.json"
        for path in (folder / "w.bin", folder / "config.json", scheduler):
            path.touch()
        read.clear()
        with pytest.raises(ValueError, match="_class_name='none' has no counterpart here"):
            formats_diffusers.read(folder / "w.bin", None)
        assert read == [scheduler, folder / "config.json"]
        scheduler.unlink()
        (beside / "scheduler").rmdir()
