"""Components by import path: where modules are looked for, what is said of those that cannot be used, and their options."""

import dataclasses
import sys
from typing import Any, ClassVar

import pytest

from experiments.config import components
from experiments.config import files as config
from experiments.errors import UserError
from tests.experiments.tiny import tiny_config


@pytest.fixture
def here(tmp_path, monkeypatch):
    """(name, text) writes a module in the current folder, which is not among the places of modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    before = set(sys.modules)

    def write(name, text):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    "name, there",
    [("json", True), ("experiments.config", True), ("own_one", True), ("own_two", False), ("own_one.x", False),
     ("own_two.x", False), ("", False), (".json", False)],
)  # fmt: skip
def test_modules_are_those_of_the_current_folder_and_those_that_are_installed(here, name, there):
    here("own_one", "X = 1")
    assert components.has_module(name) == there


def test_a_module_of_the_current_folder_comes_before_others(here, tmp_path, monkeypatch):
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "own_one.py").write_text("X = 'installed'")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    here("own_one", "X = 'here'")
    assert components.load("key", "own_one:X") == "here"
    assert components.load("key", "own_one:X") == "here" and sys.path.count(str(tmp_path)) == 1


def test_a_name_of_the_table_comes_before_an_import_path(here):
    here("own_one", "X = 'path'")
    table = {"own_one:X": "table", "plain": 3}
    assert [components.component("key", name, table) for name in ("own_one:X", "plain")] == ["table", 3]
    assert components.component("key", "own_one:X", {"plain": 3}) == "path"
    with pytest.raises(UserError, match=r"^key='plian' is unknown: choose from .*plain; did you mean 'plain'\?$"):
        components.component("key", "plian", table)


LONG = "a " * 400


@pytest.mark.parametrize(
    "path, message",
    [
        ("own_gone:X", "there is no module 'own_gone' in {folder} or installed"),
        ("own_gone.inner:X", "there is no module 'own_gone' in {folder} or installed"),
        ("own_package.gone:X", "there is no module 'own_package.gone' in {folder} or installed"),
        ("own_one:Shown", "the module own_one has no 'Shown'; did you mean 'Showns'?"),
        ("own_one:_hiden", "the module own_one has no '_hiden'"),
        ("own_package.inner:Zed", "the module own_package.inner has no 'Zed'; did you mean 'Zeds'?"),
        ("own_importing:X", ", line 2: ModuleNotFoundError: No module named 'own_import'"),
        ("own_raising:X", ", line 6: ValueError: two lines here"),
        ("own_wrong:X", ", line 2: SyntaxError: "),
        ("own_package.late:X", ", line 3: ZeroDivisionError: division by zero"),
        ("own_long:X", f", line 1: ValueError: {LONG[:300]}"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_with_its_place(here, tmp_path, path, message):
    here("own_one", "Showns = 1\n_hidden = 2\n")
    here("own_package.__init__", "")
    here("own_package.inner", "Zeds = 3\n")
    here("own_package.late", "\n\n1 / 0\n")
    here("own_importing", "\nimport own_import\n")  # the beginning of its own name
    here("own_raising", "def f():\n    g()\n\n\ndef g():\n    raise ValueError('two\\nlines  here')\n\n\nf()\n")
    here("own_wrong", "\nx = (\n")
    here("own_long", f"raise ValueError({LONG!r})")
    with pytest.raises(UserError) as error:
        components.load("sde.name", path)
    expected = message.format(folder=tmp_path)
    assert str(error.value).startswith(f"sde.name={path}{'' if expected.startswith(',') else ': '}{expected}")
    assert "\n" not in str(error.value) and ("'?" in expected or "did you mean" not in str(error.value))
    if path == "own_long:X":
        assert str(error.value).endswith(f"ValueError: {LONG[:300]}")


class Base:
    """Attributes of a component that others derive from."""

    t_max: float = 1.0
    kept: int = 3
    shared: ClassVar[int] = 7


class Derived(Base):
    """A list, which becomes a tuple; what a config cannot hold; names that the program sets."""

    t_max = 2.0
    name: str = "x"
    parent: Any = None
    t_min: float = 1e-3
    _private: int = 5
    sizes: list = [1, 2]
    nested: tuple = ((1, 2), "a", None)
    function: Any = print
    mixed: tuple = (1, print)
    needed: int
    flag: bool = False


@dataclasses.dataclass
class Fields:
    """Fields with a default, with a factory, without any."""

    needed: int
    width: int = dataclasses.field(default=4, kw_only=True)
    made: list = dataclasses.field(default_factory=list)
    text: str = "t"


def test_options_are_what_a_config_can_hold_of_a_class_and_of_its_bases():
    found = components.options(Derived)
    assert found == {
        "t_max": 2.0, "kept": 3, "sizes": (1, 2), "nested": ((1, 2), "a", None), "flag": False,
    }  # fmt: skip
    assert list(found)[:2] == ["t_max", "kept"]  # those of the base first
    assert components.options(Base) == {"t_max": 1.0, "kept": 3}
    assert components.options(Fields) == {"width": 4, "text": "t"}
    assert components.options(3) == components.options("text") == components.options(None) == {}


def test_options_of_a_function_are_its_parameters_with_a_default():
    def made(x, width=3, *, rate=0.5, name="n", parent=None, t_min=0, _hidden=1, kinds=("a",), other=print, shape=[1]):  # noqa: B006
        return x

    assert components.options(made) == {"width": 3, "rate": 0.5, "kinds": ("a",), "shape": (1,)}


def test_options_of_a_component_are_known_whatever_the_order_of_the_flags(here):
    """Set before or after the component; those that are not set have its own defaults."""
    here("own_sampler", "class Sampler:\n    place: float = 0.5\n    order: int = 7\n")
    given = [("sampling.place", "0.25"), ("sampling.sampler", "own_sampler:Sampler"), ("sampling.steps", "9")]
    for flags in (given, given[::-1]):
        made = config.apply(tiny_config(), flags)
        assert (made.sampling.sampler, made.sampling.place, made.sampling.order, made.sampling.steps) == (
            "own_sampler:Sampler", 0.25, 7, 9,
        )  # fmt: skip
        assert config.from_json(config.to_json(made)).to_dict() == made.to_dict()
    with pytest.raises(UserError, match=r"sampling\.plac=1: unknown key; did you mean 'sampling\.place'"):
        config.apply(tiny_config(), [("sampling.plac", "1"), *given])
