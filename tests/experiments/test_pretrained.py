"""Models from files: an import of an export is the same model, training goes on from it, and faults are named."""

import json

import jax
import numpy as np
import pytest

import sde_lib
from experiments import factory, load_pretrained, load_run
from experiments.__main__ import main
from experiments.cli import export, import_
from experiments.loading.dataset import class_order
from experiments.loading.pretrained import FORMATS
from experiments.runs.checkpoint import Checkpoints
from experiments.runs.workdir import Workdir
from models.pretrained import files
from tests.experiments.tiny import tiny_config

pytest.importorskip("safetensors", reason="safetensors is not installed: pip install -e '.[pretrained]'")


@pytest.fixture(scope="session")
def exported(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "digits.safetensors"
    assert main(["export", f"--workdir={tiny_run}", f"--out={path}"]) == 0
    return path


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_help_names_every_format():
    assert list(import_.FORMATS) == list(FORMATS)
    assert list(export.FORMATS) == [name for name, known in FORMATS.items() if known.write]


def test_an_import_of_an_export_is_the_same_model(tiny_run, exported, tmp_path, capsys):
    run, workdir = load_run(tiny_run), tmp_path / "imported"
    assert main(["import", f"--from={exported}", "--format=ornstein", f"--workdir={workdir}"]) == 0
    assert f"sample --workdir={workdir}" in capsys.readouterr().out
    imported, opened = load_run(workdir), load_pretrained(exported, "ornstein")
    assert imported.config.to_dict() == opened.config.to_dict() == run.config.to_dict()
    equal(imported.variables, run.variables)
    equal(opened.variables, run.variables)
    keys, times = jax.random.split(jax.random.key(0), 2), sde_lib.uniform_times(run.denoiser.sde, 2)
    a, b = (sde_lib.sample(keys, r.denoiser, sde_lib.DDIM(), times, r.event_shape) for r in (run, opened))
    np.testing.assert_array_equal(a, b)


def test_training_goes_on_from_imported_weights(exported, tmp_path):
    """With a learning rate of almost 0 the weights after training are those imported; the optimizer starts afresh."""
    workdir = tmp_path / "imported"
    assert main(["import", f"--from={exported}", "--format=ornstein", f"--workdir={workdir}"]) == 0
    before = load_run(workdir).variables
    flags = ["--config.optim.lr=1e-12", "--config.training.num_steps=4", "--resume_with_changes"]
    assert main(["train", f"--workdir={workdir}", *flags]) == 0
    after = load_run(workdir)
    assert after.step == 4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), after.variables, before)


def test_faults_are_one_line_and_nothing_is_written(fails, exported, tiny_run, tmp_path):
    workdir = tmp_path / "new"

    def importing(source, *more, format="ornstein"):
        message = fails("import", f"--from={source}", f"--format={format}", f"--workdir={workdir}", *more)
        assert not workdir.exists()
        return message

    assert "did you mean 'ornstein'?" in importing(exported, format="ornstien")
    assert "there is no such file" in importing(tmp_path / "absent")
    assert "leave --config out" in importing(exported, "--config=configs/digits.py")
    assert "overrides need --config" in importing(exported, "--config.model.channels=8")
    broken = tmp_path / "broken"
    broken.write_bytes(exported.read_bytes()[:-100])
    assert f"--from={broken}: it is truncated" in importing(broken)
    other = tmp_path / "other"
    tensors, metadata = files.read_safetensors(exported)
    files.write_safetensors(other, tensors, {})
    assert "not written by `export`" in importing(other)
    name = "params/conv_in/kernel"
    files.write_safetensors(other, tensors | {name: tensors[name][..., :-1].copy(), "extra": np.zeros(1)}, metadata)
    message = importing(other)
    assert f"of another shape: {name} (3, 3, 1, 7), not (3, 3, 1, 8)" in message
    assert "not of this network: extra" in message
    message = fails("import", f"--from={exported}", "--format=ornstein", f"--workdir={tiny_run}")
    assert "holds a run already" in message
    assert "exists already" in fails("export", f"--workdir={tiny_run}", f"--out={exported}")
    assert "--format='onnx' is unknown" in fails("export", f"--workdir={tiny_run}", f"--out={workdir}", "--format=onnx")


def test_an_export_keeps_the_names_of_the_classes(fails, tmp_path):
    """By name after the import, in the order of the run that was exported; nothing is trained."""
    config, trained = tiny_config(model__num_classes=2), Workdir(tmp_path / "trained")
    trained.claim(config)
    trained.data.write_text(json.dumps({"class_names": ["10", "2"], "class_order": "text", "source": "digits"}))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), factory.abstract_variables(config))
    with Checkpoints(trained.checkpoints, 2) as checkpoints:
        checkpoints.save_weights(0, zeros)
    path, imported = tmp_path / "model", Workdir(tmp_path / "imported")
    assert main(["export", f"--workdir={trained.path}", f"--out={path}"]) == 0
    importing = ["import", f"--from={path}", "--format=ornstein", f"--workdir={imported.path}"]
    assert main(importing) == 0
    assert imported.read_data() == {"class_names": ["10", "2"], "class_order": "text"}
    assert load_run(imported.path).class_names == ("10", "2") and class_order(imported) == "text"
    tensors, metadata = files.read_safetensors(path)
    files.write_safetensors(path, tensors, metadata | {"classes": '{"class_names": [1, 2]}'})
    message = fails(*importing[:-1], f"--workdir={tmp_path}/other")
    assert "no texts as names of the classes" in message and not (tmp_path / "other").exists()
