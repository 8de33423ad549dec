"""The laws of the design that a reader can check by reading: who imports whom, and where strings and classes are asked."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("sde_lib", "models", "configs", "experiments")
ALLOWED = {"sde_lib": {"sde_lib"}, "models": {"models"}, "configs": {"configs"}, "experiments": set(ROOMS)}
FLOORS = (
    ("errors", "files"),
    ("config", "devices", "learning", "plotting"),
    ("media",),
    ("conditions", "data", "runs"),
    ("logs", "metrics", "objectives"),
    ("factory",),
    ("generation", "loading", "reports"),
    ("evaluation", "inverse"),
    ("editing", "training"),
    ("benchmarks",),
    ("cli",),
    ("__init__", "__main__"),
)  # the folders and files of experiments/, from the ground up
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def parsed(path):
    return ast.parse(path.read_text())


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    assert {name for name in imported(parsed(path)) if name in ROOMS} <= ALLOWED[room]


def floors_of_imports():
    """(floor, room) of each file of experiments/, and those of each room that it imports."""
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    for path in (ROOT / "experiments").rglob("*.py"):
        room = path.relative_to(ROOT / "experiments").parts[0].removesuffix(".py")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                names = [alias.name.split(".") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [[*node.module.split("."), alias.name] for alias in node.names]
            else:
                continue
            for name in names:
                if name[0] == "experiments" and name[1] in floor_of and name[1] != room:
                    yield path, (floor_of[room], room), (floor_of[name[1]], name[1])


def test_rooms_of_experiments_import_those_below_alone():
    for path, above, below in floors_of_imports():
        assert above[0] > below[0], f"{path}: {above[1]} imports {below[1]}, which is no floor below"


def test_rooms_of_experiments_have_few_arrows():
    assert len({(above[1], below[1]) for _, above, below in floors_of_imports()}) < 130


def test_configs_import_only_ml_collections():
    for path in (ROOT / "configs").rglob("*.py"):
        assert set(imported(parsed(path))) <= {"configs", "ml_collections"} | sys.stdlib_module_names


def test_no_class_check_in_the_mathematics():
    """No isinstance or issubclass on a process, Denoiser or method: a new one must work everywhere at once."""
    allowed = {"jax.core.Tracer"}
    for path in (ROOT / "sde_lib").rglob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
                assert ast.unparse(node.args[1]) in allowed, f"{path}:{node.lineno}"


def test_no_branch_on_a_config_string_outside_factory():
    """A comparison of a `....name` with a literal string, or a `match` on one."""
    for path in (ROOT / "experiments").rglob("*.py"):
        if path.is_relative_to(ROOT / "experiments" / "factory"):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Compare) and "config." in ast.unparse(node.left):
                texts = [c for c in node.comparators if isinstance(c, ast.Constant) and isinstance(c.value, str)]
                assert not texts, f"{path}:{node.lineno}"


# A module that its package imports needs no turn of its own: to import it first is to import its package first. The other
# rooms stay: no circle leads through two rooms, since imports between them go one way.
IMPORT_EACH_FIRST = """
import importlib, sys
with_package = {}
for name in sys.argv[1:]:
    if name in with_package.get(name.rpartition(".")[0], ()):
        continue
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == name.split(".")[0]]:
        del sys.modules[loaded]
    importlib.import_module(name)
    with_package[name] = set(sys.modules)
"""


@pytest.mark.thorough
def test_every_module_can_be_the_first_that_is_imported():
    """No circle of imports that another order of them would hide."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in FILES if path.stem != "__main__"]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    subprocess.run([sys.executable, "-c", IMPORT_EACH_FIRST, *names], cwd=ROOT, check=True)


GLOBAL_STATE_AFTER_IMPORT = """
import importlib, logging, os, sys
import flax, grain, jax, optax, orbax.checkpoint

def state():
    loggers = {name: logging.getLogger(name) for name in ("", "absl", "asyncio", "flax", "jax")}
    logs = {name: (logger.level, list(logger.filters), list(logger.handlers)) for name, logger in loggers.items()}
    return dict(os.environ), dict(jax.config.values), logs

before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
assert state() == before
"""


def test_modules_set_nothing_at_import():
    """No environment variable, flag of JAX, level, filter or handler of a logger."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in FILES if "benchmarks" not in path.parts]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.stem != "__main__"]
    clean = {name: value for name, value in os.environ.items() if name != "CRC32C_SW_MODE"}  # set here by tensorboardX
    subprocess.run([sys.executable, "-c", GLOBAL_STATE_AFTER_IMPORT, *names], cwd=ROOT, env=clean, check=True)
