"""The benchmark of networks: how operations are counted, what stands beside what, and what the command prints."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import models
from experiments.__main__ import main
from experiments.benchmarks import networks, torch_networks
from experiments.benchmarks.cases import CASES, Case
from experiments.benchmarks.networks import Figures, Row
from experiments.training.flops import flops
from models.layers.convolution import VARIABLE, convolution, transposed_convolution


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


PRODUCT = 2 * 5 * 7 * 11  # of (5, 7) and (7, 11)
OUTPUT = 2 * 2 * (4 * 6) * (3 * 5) * (3 * 7)  # images, pixels of the output, taps, pairs of channels; times 2


@pytest.mark.parametrize(
    "function, shapes, expected",
    [
        (jnp.matmul, [(5, 7), (7, 11)], PRODUCT),
        (lambda a, b: jnp.einsum("nij,njk->nik", a, b), [(3, 5, 7), (3, 7, 11)], 3 * PRODUCT),
        (lambda a, b: a @ b + jnp.tanh(a).sum(), [(5, 7), (7, 11)], PRODUCT),
        (jax.jit(jax.checkpoint(jnp.matmul)), [(5, 7), (7, 11)], PRODUCT),
        (lambda a, b: lax.scan(lambda c, _: (c, a @ b), 0, None, length=4)[1], [(5, 7), (7, 11)], 4 * PRODUCT),
        (lambda a, b: lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: 2 * (a @ b) @ b.T @ b), [(5, 7), (7, 11)], 3 * PRODUCT),
        (lambda x, k: lax.conv(x, k, (2, 1), "SAME"), [(2, 3, 8, 6), (7, 3, 3, 5)], OUTPUT),
        (lambda x, k: convolution(x, k, stride=(2, 1)), [(2, 8, 6, 3), (3, 5, 3, 7)], OUTPUT),
        (lambda x, k: convolution(x, k, dilation=2), [(2, 4, 6, 3), (3, 5, 3, 7)], OUTPUT),
        (convolution, [(2, 4, 6, 3), (1, 1, 3, 7)], OUTPUT // 15),
        (transposed_convolution, [(2, 4, 6, 3), (3, 5, 3, 7)], OUTPUT),
        (
            lambda x, k: lax.conv_transpose(x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")),
            [(2, 20, 30, 3), (2, 2, 3, 7)],
            2 * 2 * (20 * 30) * (2 * 2) * (3 * 7),  # one tap for each pixel of the input: the rest are zeros in between
        ),
        (
            lambda x, k: lax.conv_general_dilated(
                x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
            ),
            [(2, 4, 6, 3), (3, 5, 1, 6)],
            2 * 2 * (4 * 6) * (3 * 5) * 6,
        ),
    ],
)  # fmt: skip
def test_operations_are_those_of_the_closed_form(function, shapes, expected):
    assert flops(function, *(shape(*s) for s in shapes)) == expected


@pytest.mark.parametrize("geometry", [{}, {"stride": (2, 1)}, {"dilation": 2, "padding": ((1, 3), (4, 2))}])
def test_each_gradient_of_a_convolution_makes_as_many_operations_as_the_convolution(geometry):
    x, kernel = shape(2, 8, 6, 3), shape(3, 5, 3, 7)
    y = jax.eval_shape(lambda x, k: convolution(x, k, **geometry), x, kernel)
    alone = flops(lambda x, k: convolution(x, k, **geometry), x, kernel)
    assert alone == 2 * math.prod(y.shape) * 3 * 5 * 3
    assert flops(lambda x, k, g: jax.vjp(lambda x: convolution(x, k, **geometry), x)[1](g), x, kernel, y) == 2 * alone
    assert flops(lambda x, k, g: jax.vjp(lambda k: convolution(x, k, **geometry), k)[1](g), x, kernel, y) == 2 * alone


def derivatives(f):
    """A function of x and kernel that evaluates f, both its gradients, and the tangents of the gradients."""

    def gradients(x, kernel):
        return jax.grad(lambda x, kernel: jnp.sum(f(x, kernel) ** 2), (0, 1))(x, kernel)

    return lambda x, kernel: jax.jvp(gradients, (x, kernel), (x, kernel))


@pytest.mark.parametrize(
    "function, x, kernel",
    [
        (convolution, (2, 6, 3), (3, 3, 5)),
        (functools.partial(convolution, stride=2), (2, 7, 3), (4, 3, 5)),
        (functools.partial(convolution, stride=(2, 1), dilation=(1, 2)), (2, 8, 6, 3), (3, 5, 3, 7)),
        (functools.partial(convolution, stride=2, padding="VALID"), (2, 9, 7, 3), (3, 3, 3, 7)),
        (functools.partial(convolution, stride=2), (2, 2, 1, 3), (3, 3, 3, 7)),
        (functools.partial(convolution, stride=2), (2, 4, 5, 6, 3), (3, 2, 3, 3, 7)),
        (transposed_convolution, (2, 4, 3), (3, 3, 5)),
        (transposed_convolution, (2, 4, 5, 3), (4, 3, 3, 5)),
    ],
)
def test_both_implementations_of_a_convolution_count_the_same(monkeypatch, function, x, kernel):
    """Values, gradients and their tangents; the counts are those of the primitive, which are closed forms."""
    counts = []
    for name in ("loop", "lax"):
        monkeypatch.setenv(VARIABLE, name)
        made = derivatives(lambda x, kernel: function(x, kernel))
        assert ("conv_general_dilated" in str(jax.make_jaxpr(made)(jnp.zeros(x), jnp.zeros(kernel)))) == (name == "lax")
        counts.append(flops(made, shape(*x), shape(*kernel)))
    assert counts[0] == counts[1] > 0


def test_the_command_line_refuses_an_unknown_implementation_in_one_line(monkeypatch, fails, tmp_path):
    monkeypatch.setenv(VARIABLE, "xla")
    message = fails("train", "--config=configs/digits.py", f"--workdir={tmp_path}/run")
    assert message.startswith("ORNSTEIN_CONV='xla': must be loop or lax") and not (tmp_path / "run").exists()


def test_a_loop_of_unknown_length_is_refused():
    def doubling(a):
        return lax.while_loop(lambda a: a[0, 0] < 9, lambda a: a @ a, a)

    with pytest.raises(ValueError, match="while"):
        flops(doubling, shape(3, 3))
    assert flops(lambda a: lax.while_loop(lambda a: a[0, 0] < 9, lambda a: 2 * a, a), shape(3, 3)) == 0


def test_every_family_has_a_case():
    assert sorted(networks.families()) == sorted(models.KNOWN)


CASE = Case("unet", "a small one", (8, 8, 2), 4)


def test_a_line_gives_medians_and_the_median_of_the_ratios_of_neighbours():
    """The machine ran at half speed in the third round: 3 and 6 there; the ratio of the medians would be 1.5 / 2."""
    ours = Figures("ornstein", 35_746_307, 12_140_000_000, (1.0, 1.5, 3.0), (0.01234, 0.01234), 3 * 2**20)
    peer = Figures("Net", 35_746_307, 6_070_000_000, (2.0, 2.0, 6.0), (0.1, 0.2), 2 * 2**20)
    assert networks.line(Row(CASE, ours, peer)) == (
        "| unet | a small one | 8x8x2 | 4 | Net | 35.7 / 35.7 (1.00) | 12.1 / 6.07 (2.00) | 1,500 / 2,000 (0.50) "
        "| 12.3 / 150 (0.09) | 3.00 / 2.00 (1.50) |"
    )
    assert networks.line(Row(CASE, ours)) == (
        "| unet | a small one | 8x8x2 | 4 | - | 35.7 | 12.1 | 1,500 | 12.3 | 3.00 |"
    )


def test_the_suite_names_what_is_wrong(fails, tmp_path):
    def networks_fail(*arguments):
        return fails("benchmark", "--suite=networks", *arguments)

    assert networks_fail("--config=configs/digits.py").startswith("--suite=networks takes no config")
    assert networks_fail(f"--out={tmp_path}/table.txt").endswith("must end in .md")
    message = networks_fail("--families=unet,ditt", f"--out={tmp_path}/new/table.md")
    assert message.startswith("--families='ditt' is unknown: choose from adm, ") and message.endswith("mean 'dit'?")
    assert not (tmp_path / "new").exists()
    assert fails("benchmark", "--suite=methods", "--families=unet") == "--families=unet: is for --suite=networks"


def nowhere(platform):
    return False


@pytest.fixture
def no_peers(monkeypatch):
    monkeypatch.setattr(torch_networks, "runs_on", nowhere)


@pytest.mark.thorough
def test_a_case_is_measured_from_the_command_line_to_the_file(monkeypatch, no_peers, tmp_path, capsys):
    monkeypatch.setattr(networks, "CASES", (Case("mlp", "a small one", (2,), 64, {"width": 512}),))
    assert main(["benchmark", "--suite=networks", f"--out={tmp_path}/new/table.md"]) == 0
    text = (tmp_path / "new" / "table.md").read_text()
    assert text == capsys.readouterr().out
    assert 'pip install -e ".[interop]"' in text.splitlines()[1]
    cells = [cell.strip() for cell in text.splitlines()[-1].split("|")[1:-1]]
    assert cells[:5] == ["mlp", "a small one", "2", "64", "-"]
    parameters, operations, forward, step, memory = map(float, cells[5:])
    assert operations == pytest.approx(2 * parameters / 1e3, rel=0.01) and step > forward > 0
    assert memory > 4 * 4 * parameters * 1e6 / 2**20  # parameters, gradient and two moments


@pytest.fixture
def meta():
    """torch's device of shapes without values, as far as the interop extra is installed."""
    torch = pytest.importorskip("torch", reason="the interop extra is not installed")
    pytest.importorskip("diffusers", reason="the interop extra is not installed")
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("classes", [0, 3])
def test_operations_of_a_peer_are_of_one_image_and_passes_are_of_the_batch(monkeypatch, classes):
    """The peer is a 1 x 1 convolution; Adam's first step is 1e-4 against the sign of the gradient of the squared error."""
    torch = pytest.importorskip("torch", reason="the interop extra is not installed")
    seen, set_ = [], {}
    for name in ("set_num_threads", "set_float32_matmul_precision", "set_default_device"):
        monkeypatch.setattr(torch, name, functools.partial(set_.__setitem__, name))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(2, 2, 1, bias=False)
            self.frequencies = torch.nn.Parameter(torch.ones(5), requires_grad=False)

        def forward(self, x, time, class_labels, return_dict):
            assert return_dict is False
            labels = class_labels if class_labels is None else tuple(class_labels.shape)
            seen.append((tuple(x.shape), tuple(time.shape), labels, self.training, torch.is_grad_enabled()))
            return (self.layer(x),)

    monkeypatch.setitem(torch_networks.MAKERS, "one", lambda network, shape: Net())
    peer = torch_networks.Peer("one", models.DiT(num_classes=classes), (4, 6, 2), 5, 3)
    assert (peer.name, peer.parameters, peer.memory) == ("Net", 2 * 2 + 5, None)
    assert list(set_.values()) == [3, "high", "cpu"]
    assert peer.flops() == 2 * 4 * 6 * 2 * 2
    peer.forward()
    x, target, before = peer._x, peer._target, peer.network.layer.weight.detach().clone()
    residual = torch.einsum("oi,bihw->bohw", before[..., 0, 0], x) - target
    slope = torch.einsum("bohw,bihw->oi", residual, x)
    peer.step()
    moved = (peer.network.layer.weight.detach() - before)[..., 0, 0]
    torch.testing.assert_close(moved, -1e-4 * torch.sign(slope), rtol=1e-2, atol=0)
    one, batch = ((n, 2, 4, 6) for n in (1, 5))
    labels = [(n,) if classes else None for n in (1, 5)]
    assert [entry[:3] for entry in seen] == [(one, (1,), labels[0])] + 2 * [(batch, (5,), labels[1])]
    assert [entry[3:] for entry in seen[1:]] == [(False, False), (True, True)]


def filters():
    """Operations of diffusers' FIR filters in the NCSN++ of the cases, 4 x 4 taps for each channel, which ours does as sums.

    At each change of resolution, both paths of a block (2 C channels) and an image are filtered: on the way down before
    every other pixel is dropped, of which the last has no neighbour, on the way up after zeros are put in between.
    """
    down = [(128, 64), (128, 32), (256, 16), (256, 8)]
    up = [(256, 8), (256, 16), (256, 32), (128, 64)]
    return (
        2 * 16 * (sum((2 * c + 3) * (size - 1) ** 2 for c, size in down) + sum((2 * c + 3) * size**2 for c, size in up))
    )


# What diffusers does and we do not. Its DiT embeds the noise level once more for the last layer.
MORE = {"ncsnpp": filters(), "dit": 2 * (256 * 384 + 384 * 384)}


@pytest.mark.thorough
@pytest.mark.parametrize("case", [case for case in CASES if case.peer], ids=lambda case: case.family)
def test_both_sides_have_as_many_parameters_and_operations(case, meta):
    """Counted by two independent rules: ours from the program, theirs from the operations that torch is asked for."""
    ours, peer = networks.Ours(case), torch_networks.Peer(case.peer, case.network(), case.shape, case.batch, 1)
    assert peer.parameters == ours.parameters
    assert peer.flops() == ours.flops() + MORE.get(case.family, 0)


def test_a_peer_has_the_settings_that_are_published_with_it(meta):
    """Those that neither parameters nor operations tell: of google/ncsnpp-celebahq-256, and of facebook/DiT."""
    by_peer = {case.peer: case for case in CASES}
    ncsnpp = torch_networks.MAKERS["ncsnpp"](by_peer["ncsnpp"].network(), (64, 64, 3)).config
    assert ncsnpp.mid_block_scale_factor == pytest.approx(math.sqrt(2)) and ncsnpp.norm_eps == 1e-6
    assert (ncsnpp.time_embedding_type, ncsnpp.sample_size, ncsnpp.attention_head_dim) == ("fourier", 64, None)
    assert list(ncsnpp.down_block_types) == ["SkipDownBlock2D"] * 2 + ["AttnSkipDownBlock2D"] + ["SkipDownBlock2D"] * 2
    assert list(ncsnpp.up_block_types) == ["SkipUpBlock2D"] * 2 + ["AttnSkipUpBlock2D"] + ["SkipUpBlock2D"] * 2
    half = torch_networks.MAKERS["ncsnpp"](
        by_peer["ncsnpp"].network(), (32, 32, 3)
    ).config  # 16 pixels at the second level
    assert [kind.startswith("Attn") for kind in half.down_block_types] == [False, True, False, False, False]
    assert [kind.startswith("Attn") for kind in half.up_block_types] == [False, False, False, True, False]
    assert list(ncsnpp.block_out_channels) == [128, 128, 256, 256, 256] and ncsnpp.layers_per_block == 2
    dit = torch_networks.MAKERS["dit"](by_peer["dit"].network(), (32, 32, 4)).config
    assert (dit.norm_eps, dit.sample_size, dit.patch_size, dit.num_embeds_ada_norm) == (1e-5, 32, 2, 1000)
    assert (dit.in_channels, dit.out_channels, dit.num_layers) == (4, 4, 12)
    assert (dit.num_attention_heads, dit.attention_head_dim) == (6, 64)


@pytest.mark.parametrize(
    "platform, cuda, installed, runs",
    [("cpu", False, True, True), ("gpu", True, True, True), ("gpu", False, True, False), ("tpu", True, True, False),
     ("cpu", True, False, False)],
)  # fmt: skip
def test_a_peer_runs_where_torch_has_the_device_of_jax(monkeypatch, platform, cuda, installed, runs):
    torch = pytest.importorskip("torch", reason="the interop extra is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(
        torch_networks.importlib.util, "find_spec", lambda name: installed or name != "diffusers" or None
    )
    assert torch_networks.runs_on(platform) == runs


def test_each_step_of_a_peer_has_its_own_gradient_and_each_peer_the_same_inputs(monkeypatch):
    """Gradients do not add up over steps; inputs are normal numbers of a fixed seed, at noise level 1 and of class 0."""
    torch = pytest.importorskip("torch", reason="the interop extra is not installed")
    for name in ("set_num_threads", "set_float32_matmul_precision", "set_default_device"):
        monkeypatch.setattr(torch, name, lambda value: None)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(2, 2, 1, bias=False)

        def forward(self, x, time, class_labels, return_dict):
            return (self.layer(x),)

    monkeypatch.setitem(torch_networks.MAKERS, "one", lambda network, shape: Net())
    peer, other = (torch_networks.Peer("one", models.DiT(num_classes=3), (4, 6, 2), 5, 3) for _ in range(2))
    x, target = peer._x, peer._target
    assert torch.equal(x, other._x) and torch.equal(target, other._target) and not torch.equal(x, target)
    assert abs(float(x.std()) - 1) < 0.1 and (peer._time == 1).all() and (peer._labels == 0).all()
    assert peer._labels.dtype == torch.long
    peer.step()
    before = peer.network.layer.weight.detach()[..., 0, 0].clone()
    peer.step()
    residual = torch.einsum("oi,bihw->bohw", before, x) - target
    expected = 2 * torch.einsum("bohw,bihw->oi", residual, x) / residual.numel()
    torch.testing.assert_close(peer.network.layer.weight.grad[..., 0, 0], expected, rtol=1e-4, atol=1e-6)
