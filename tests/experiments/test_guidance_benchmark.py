"""`benchmark --suite=guidance`: each row is one Denoiser's time over the plain one's, and each runs what it says."""

import re
from collections import Counter

import jax
import pytest
from jax.extend.core import jaxprs_in_params

from experiments.__main__ import main
from experiments.benchmarks import guidance
from experiments.factory.experiment import Experiment
from tests.experiments.tiny import ROOT, flags, tiny_config


def test_rows_are_in_order_and_relative_to_the_plain_row():
    rows = guidance.table({"a": 0.4, guidance.PLAIN: 0.16, "b": 0.08}).splitlines()[2:]
    assert rows == ["| a | 50.0 | 2.50 |", "| plain | 20.0 | 1.00 |", "| b | 10.0 | 0.50 |"]


def convolutions(jaxpr):
    """How many there are of each kind, in a program and the programs within."""
    found = Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("convolution", "conv_general_dilated"):
            found[equation.params.get("open_leg", "XLA's")] += 1
        if equation.primitive.name == "custom_linear_solve":
            found += convolutions(
                equation.params["jaxprs"].solve.jaxpr
            )  # the one that runs: the others are its derivatives
            continue
        for inner in jaxprs_in_params(equation.params):
            found += convolutions(inner)
    return found


@pytest.mark.thorough
def test_products_with_the_jacobian_evaluate_no_network_again(monkeypatch):
    """They are transposed convolutions, one for each of an evaluation, all by the layer's own rule; in a loop for MMPS."""
    found = {}

    def count(**functions):
        found.update({name: convolutions(jax.make_jaxpr(function)().jaxpr) for name, function in functions.items()})
        return {}, dict.fromkeys(functions, 1.0)

    monkeypatch.setattr(guidance, "minima", count)
    monkeypatch.setattr(guidance, "MMPS_STEPS", (1, 5))
    guidance.benchmark(Experiment(tiny_config()))
    evaluation = found[guidance.PLAIN]["output"]
    assert found[guidance.PLAIN] == {"output": evaluation} and evaluation > 4
    for name in ("DPS", "PiGDM", "MMPS, 1 step", "MMPS, 5 steps"):
        assert found[name] == {"output": evaluation, "input": evaluation}, name
    assert found["TMPD"] == {
        "output": 2 * evaluation,
        "input": 2 * evaluation,
    }  # two products, and one by the transpose


@pytest.mark.thorough
def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(guidance, "MMPS_STEPS", (2,))
    assert main(["benchmark", "--suite=guidance", f"--config={ROOT}/configs/digits.py", *flags()]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^\| (.*?) \| ([\d.]+) \| ([\d.]+) \|$", out, re.MULTILINE)
    assert [row[0] for row in rows] == ["plain", "ClassifierGuidance", "DPS", "PiGDM", "TMPD", "MMPS, 2 steps"]
    assert rows[0][2] == "1.00"
    assert float(rows[3][2]) > 1.2  # a product with the Jacobian is not free
