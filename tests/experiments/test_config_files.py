"""Config files and stored configs that cannot work are one line that names the file, its line or its key."""

import json

import pytest

from experiments import factory
from experiments.config import files as config
from experiments.errors import UserError
from experiments.runs.workdir import Workdir
from tests.experiments.tiny import ROOT, tiny_config

HEAD = "from configs import base\n\ndef get_config():\n    config = base.get_config()\n"


@pytest.mark.parametrize(
    "text, message",
    [
        (f"{HEAD}    config.optim.learning_rate = 1\n    return config\n", "optim.learning_rate is an unknown key; did you"),
        (f"{HEAD}    config.training.epochs = 3\n    return config\n", "training.epochs is an unknown key"),
        (f"{HEAD}    config.model.name = 'dit'\n    return config\n", "model.attention_resolutions is not an option of"),
        (f"{HEAD}    config.data.random_flip = 3\n    return config\n", ", line 5: TypeError: "),
        (f"{HEAD}    return config.nothing\n", ", line 5: AttributeError: "),
        (f"{HEAD}    return config.to_dict()\n", "get_config() must return a ConfigDict, not dict"),
        (f"{HEAD}    del config.optim\n    return config\n", "the section optim is missing; start from"),
        (f"{HEAD}    del config.optim.lr\n    return config\n", "optim.lr is missing; start from configs.base.get_config()"),
        ("import nothing_of_this_name\n", ", line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("def get_config(:\n", ", line 1: SyntaxError: "),
    ],
)  # fmt: skip
def test_a_config_file_that_cannot_work_is_named_with_its_line_or_key(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        config.load(str(path))
    assert str(error.value).startswith(f"--config={path}") and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "the config must be an object of sections"),
        ('{"optim": 3}', "optim must be a section"),
        ('{"optim": {"lr": "fast"}}', "optim.lr='fast' must be a number"),
        ('{"optim": {"lr": true}}', "optim.lr=True must be a number"),
        ('{"optim": {"lr": null}}', "optim.lr=None must be a number"),
        ('{"sampling": {"guidance": {"scale": null}}}', "sampling.guidance.scale=None must be a number"),
        ('{"sampling": {"guidance": {"name": 3}}}', "sampling.guidance.name=3 must be a text"),
        ('{"sampling": {"guidance": 3}}', "sampling.guidance must be a section"),
        ('{"condition": {"label": []}}', "condition.label must be a section"),
        ('{"data": {"random_flip": 1}}', "data.random_flip=1 must be true or false"),
        ('{"data": {"random_flip": "yes"}}', "data.random_flip='yes' must be true or false"),
        ('{"training": {"writers": "jsonl"}}', "training.writers='jsonl' must be a list"),
        ('{"sde": {"name": null}}', "sde.name=None must be a text"),
        ('{"optim": ', "is not valid JSON"),
    ],
)
def test_a_stored_config_of_other_kinds_is_named_with_its_key(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as error:
        Workdir(tmp_path).read_config()
    assert f"{tmp_path}/config.json" in str(error.value) and message in str(error.value)


def test_a_stored_config_of_a_later_version_is_read():
    stored = json.loads(config.to_json(tiny_config()))
    stored["sampling"]["later"], stored["later"] = 1, {"key": 2}
    read = config.from_json(json.dumps(stored))
    assert read.sampling.later == 1 and read.later.key == 2


@pytest.mark.parametrize(
    "key, text, message",
    [
        ("training.num_steps", "1e400", "expected a whole number, such as 40"),
        ("training.num_steps", "nan", "expected a whole number, such as 40"),
        ("training.num_steps", "{[]: 1}", "expected a whole number, such as 40"),
        ("training.num_steps", "(" * 300, "expected a whole number, such as 40"),
        ("training.num_steps", "1+1j", "expected a whole number, such as 40"),
        ("optim.lr", "1" + "0" * 400, "expected a number that is finite, such as 0.002"),
        ("optim.lr", "true", "expected a number, such as 0.002"),
        ("model.channel_multipliers", "1e400", "expected whole numbers with commas between"),
        ("model.channel_multipliers", "1,(2,3)", "expected whole numbers with commas between"),
    ],
)
def test_a_text_that_is_no_number_is_one_line(key, text, message):
    with pytest.raises(UserError) as error:
        config.override(tiny_config(), key, text)
    assert message in str(error.value)


def test_every_config_of_ours_loads():
    for path in (ROOT / "configs").glob("*.py"):
        if path.stem != "__init__":
            config.load(str(path))


SHIFTED = """import sde_lib

class Shifted(sde_lib.CosineVPSDE):
    t_max: float = 0.9
    place: float = 0.25
"""


def test_a_process_of_a_config_file_has_its_own_defaults_or_is_refused(tmp_path, monkeypatch):
    """A value of base.py in place of another default of the process may not be meant; a section of its own is."""
    (tmp_path / "shifted.py").write_text(SHIFTED)
    monkeypatch.syspath_prepend(tmp_path)
    chosen = f"{HEAD}    config.sde.name = 'shifted:Shifted'\n"
    replaced = f"from ml_collections import ConfigDict\n{HEAD}    config.sde = ConfigDict(SECTION)\n    return config\n"
    path = tmp_path / "mine.py"
    path.write_text(f"{chosen}    return config\n")
    with pytest.raises(UserError, match=r"sde\.t_max=1\.0 is the default of configs/base\.py, .*Shifted is 0\.9: set "):
        config.load(str(path))
    path.write_text(f"{chosen}    config.sde.t_max = 0.8\n    return config\n")
    assert factory.process_options(config.load(str(path))) == {"t_max": 0.8, "offset": 0.008, "place": 0.25}
    path.write_text(replaced.replace("SECTION", "{'name': 'shifted:Shifted', 'place': 0.5}"))
    assert factory.process_options(config.load(str(path))) == {"t_max": 0.9, "offset": 0.008, "place": 0.5}
    path.write_text(replaced.replace("SECTION", "{'name': 'shifted:Shifted', 't_max': 1.0}"))
    assert config.load(str(path), [("sde.place", "0.125")]).sde.to_dict() == {
        "name": "shifted:Shifted", "t_max": 1.0, "offset": 0.008, "place": 0.125,
    }  # fmt: skip


@pytest.mark.parametrize("name, t_max", [("edm", 80.0), ("cosine", 0.995), ("rectified_flow", 0.995), ("vp", 1.0)])
def test_a_process_chosen_by_name_has_its_own_largest_time(name, t_max):
    """Whatever the order of the overrides; other values of the config stay."""
    digits = f"{ROOT}/configs/digits.py"
    chosen = config.load(digits, [("sde.name", name)])
    assert chosen.sde.t_max == t_max and chosen.sde.sigma_max == config.load(digits).sde.sigma_max != 50
    for overrides in ([("sde.name", name), ("sde.t_max", "0.5")], [("sde.t_max", "0.5"), ("sde.name", name)]):
        assert config.load(digits, overrides).sde.t_max == 0.5


def test_an_argument_is_handed_over_and_what_the_file_raises_is_told_with_its_deepest_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import base\n\ndef inner(n):\n    return [][n]\n\ndef get_config(size='8'):\n"
        "    config = base.get_config()\n    if size == 'x':\n        raise ValueError('no such size')\n"
        "    if size == 'y':\n        inner(3)\n    if size == 'z':\n        raise KeyError('a ' * 400)\n"
        "    config.data.image_size = int(size)\n    return config\n"
    )
    assert config.load(str(path)).data.image_size == 8 and config.load(f"{path}:16").data.image_size == 16
    assert config.load(f"{path}:16", [("data.image_size", "4"), ("data.image_size", "5")]).data.image_size == 5
    assert config.takes_argument(str(path)) is config.takes_argument(f"{path}:16") is True
    for argument, message in (
        ("x", f"--config={path}:x: no such size"), ("y", f"--config={path}, line 4: IndexError: list index out of range"),
        ("z", f"--config={path}, line 13: KeyError: {repr('a ' * 400)[:300]}"),
    ):  # fmt: skip
        with pytest.raises(UserError) as error:
            config.load(f"{path}:{argument}")
        assert str(error.value) == message
    path.write_text(f"{HEAD}    return config\n")
    assert config.takes_argument(str(path)) is False
    with pytest.raises(UserError, match=f"^--config={path}:16: this config takes no argument$"):
        config.load(f"{path}:16")


def test_a_file_that_is_not_there_is_told_with_the_nearest_or_with_all_configs_of_its_folder(tmp_path):
    for name in ("__init__", "base", "digits", "mnist"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "notes.txt").touch()
    for name, hint in (
        ("digit", f"; did you mean '{tmp_path}/digits.py'?"),
        ("q", f"; there are {tmp_path}/digits.py, {tmp_path}/mnist.py"), ("gone/q", ""),
    ):  # fmt: skip
        with pytest.raises(UserError) as error:
            config.takes_argument(f"{tmp_path}/{name}.py")
        said = str(error.value)
        assert said == f"--config={tmp_path}/{name}.py: no such file{hint}"


@pytest.mark.parametrize(
    "stored, key, value",
    [
        ({"sampling": {"method": "ddim"}}, "sampling.sampler", "ddim"),
        ({"sampling": {"method": "ddim", "sampler": "heun"}}, "sampling.sampler", "heun"),
        ({"training": {"class_dropout": 0.25}}, "condition.label.dropout", 0.25),
        ({"training": {"class_dropout": 0.25}, "condition": {}}, "condition.label.dropout", 0.25),
        (
            {"training": {"class_dropout": 0.25}, "condition": {"label": {"dropout": 0.5}}},
            "condition.label.dropout",
            0.5,
        ),
    ],
)
def test_a_value_of_an_old_name_goes_to_the_name_of_today_unless_that_is_stored_too(stored, key, value):
    read = config.from_json(json.dumps(stored))
    leaves = dict(config.leaves(read))
    assert leaves[key] == value and not set(config.RENAMED) & set(leaves)
    for old, new in config.RENAMED.items():
        with pytest.raises(UserError, match=rf"^--config\.{old}=x: this key was renamed to {new}$"):
            config.override(read, old, "x")
