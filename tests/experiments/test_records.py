"""Packages of one record in each file: a new file is found without a list, and starts nothing slow."""

import importlib
import subprocess
import sys

import pytest

from experiments.config.records import records
from tests.experiments.tiny import ROOT


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "noted").mkdir()
    (tmp_path / "noted" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "noted"
    for name in [name for name in sys.modules if name.partition(".")[0] == "noted"]:
        del sys.modules[name]


def write(path, name="", attribute="NOTE"):
    path.write_text(f"from types import SimpleNamespace\n{attribute} = SimpleNamespace(name={name!r})\n")
    importlib.invalidate_caches()


def test_records_are_those_of_the_files_in_alphabetical_order(package):
    write(package / "b_c.py")
    write(package / "a.py", "z+")
    assert list(records("noted", [str(package)], "NOTE")) == ["z+", "b-c"]
    write(package / "aa.py")
    assert list(records("noted", [str(package)], "NOTE")) == ["z+", "aa", "b-c"]


def test_a_file_without_a_record_and_a_name_twice_are_errors(package):
    write(package / "a.py", "one")
    write(package / "b.py", "one")
    with pytest.raises(ValueError, match="noted: two records are named 'one'"):
        records("noted", [str(package)], "NOTE")
    write(package / "c.py", attribute="NOT")
    (package / "b.py").unlink()
    with pytest.raises(AttributeError, match="NOTE"):
        records("noted", [str(package)], "NOTE")


def test_records_are_read_without_jax():
    program = "import sys\nfrom experiments.inverse import cases, problems\nfrom experiments.editing import edits\n"
    program += "assert not {'jax', 'flax', 'sde_lib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
