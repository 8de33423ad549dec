"""One tiny run, trained once for all tests that only look at it."""

import pytest

from experiments.__main__ import main
from tests.experiments.tiny import ROOT, flags


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The folder of a complete run, trained on all 8 devices."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}", *flags()]) == 0
    return workdir


@pytest.fixture
def fails(capsys):
    """Runs the command line and returns its one line of error, after checking the exit code."""

    def run(*arguments, code=2):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), lines
        return lines[0].removeprefix("error: ")

    return run
