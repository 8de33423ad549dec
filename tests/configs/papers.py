"""The experiments of the papers, as the tables in their files have them."""

import re

from experiments.config import files as config
from tests.experiments.tiny import ROOT

ROW = re.compile(r"^\| (\S+) +\| .*\| +([\d.]+) M \| +([\d.]+) GiB \| +(\d+) MiB \|$", re.MULTILINE)
FILES = sorted(path for path in (ROOT / "configs").glob("*.py") if ROW.search(path.read_text()))
# "cifar10:ve,ncsnpp" -> (parameters in millions, GiB, MiB), as the docstrings have them.
EXPERIMENTS = {
    f"{path.stem}:{argument}": (parameters, state_size, image)
    for path in FILES
    for argument, parameters, state_size, image in ROW.findall(path.read_text())
}


def load(experiment, **changes):
    """The config of an experiment by its name in the tables; `section__key=value` replaces a value."""
    overrides = [(key.replace("__", "."), str(value)) for key, value in changes.items()]
    name, _, argument = experiment.partition(":")
    return config.load(f"{ROOT}/configs/{name}.py:{argument}", overrides)
