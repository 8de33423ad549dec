"""The table of guidance in the docs, from the figures that sweeps of the scale have written.

    python -m experiments.reports.guidance_table docs/results/guidance/*.json > docs/guidance.md

Each file is the `metrics.json` of `evaluate --sweep-guidance` (see the page for the commands), named DATA_KIND.json.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.files import strict_json

KINDS = {
    "classifier_free": "classifier-free",
    "autoguidance": "autoguidance",
    "classifier": "classifier",
}

HEAD = """# Guidance of digits and MNIST

Three kinds of guidance at several scales. A scale of 1 draws from the distribution of the class as the models have it,
without guidance for the first two kinds; larger scales sharpen it. The Frechet distance (less is better), precision and
recall are in the features of the perceptron, whose distances are scaled to a variance of 100. NFE is the number of
evaluations of networks for each sample, where a classifier with its gradient counts as one.

- classifier-free: Ho and Salimans (2022), https://arxiv.org/abs/2207.12598, on the class-conditional model.
- autoguidance: Karras et al. (2024), https://arxiv.org/abs/2406.02507, on the same model, away from one of fewer steps.
- classifier: Dhariwal and Nichol (2021), https://arxiv.org/abs/2105.05233, section 4, on the unconditional model.

"""

FOOT = """
The runs, on two CPU cores:

    python -m experiments train --config=configs/digits.py --workdir=runs/digits
    python -m experiments train --config=configs/digits.py:conditional --workdir=runs/classes
    python -m experiments train --config=configs/digits.py:conditional --workdir=runs/early --config.training.num_steps=300
    python -m experiments train --config=configs/digits.py:classifier --workdir=runs/classifier

and their sweeps, after each of which `metrics.json` of the run was copied to `docs/results/guidance/`:

    python -m experiments evaluate --workdir=runs/classes --sweep-guidance=1,1.5,2,3
    python -m experiments evaluate --workdir=runs/classes --guide=runs/early --sweep-guidance=1.5,2,3
    python -m experiments evaluate --workdir=runs/digits --guide=runs/classifier --sweep-guidance=1,2,4

Those of MNIST are of `configs/mnist.py`, with `--evaluations=20 --config.evaluation.num_samples=1000`: the
class-conditional model of 1,200 steps, guided by its own checkpoint of 300 steps (`--config.training.checkpoint_every=300`
and `--config.training.keep_checkpoints=4`, `--guide=runs/mnist_classes@300`), and the unconditional one of 1,700 steps,
guided by a classifier of 400.
"""


def markdown(files: Iterable[Path]) -> str:
    """Returns the page of these files."""
    return HEAD + "\n".join(_rows(sorted(files, key=_place))) + "\n" + FOOT


def _place(file: Path) -> tuple[str, int]:
    data, _, kind = file.stem.partition("_")
    return data, list(KINDS).index(kind)


def _rows(files: Iterable[Path]) -> Iterator[str]:
    yield "| data | guidance | scale | Frechet distance | precision | recall | NFE |\n|---|---|---|---|---|---|---|"
    for file in files:
        data, _, kind = file.stem.partition("_")
        for row in strict_json.read(file, strict_json.METRICS)["guidance"]:
            yield f"| {data} | {KINDS[kind]} | {' | '.join(_cells(row))} |"


def _cells(row: dict[str, Any]) -> list[str]:
    figures = [f"{row['frechet_distance']:.2f}", f"{row['precision']:.3f}", f"{row['recall']:.3f}"]
    return [f"{row['scale']:g}", *figures, f"{row['evaluations']}"]


if __name__ == "__main__":
    print(markdown(map(Path, sys.argv[1:])), end="")
