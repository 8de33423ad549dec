"""Bytes on the wire, counted in programs whose traffic is known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from experiments.benchmarks import collectives
from experiments.devices.parallel import Fsdp, Pmap
from experiments.factory.experiment import Experiment
from tests.experiments.tiny import tiny_config

pytestmark = pytest.mark.devices


def compiled(function, *, groups=8, outputs=None):
    """A program on 8 devices, in groups of so many, of one argument (8, 16, 3) that is split along its first axis."""
    mesh = jax.make_mesh((8 // groups, groups), ("outer", "inner"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    split = P(("outer", "inner"))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=outputs or P(), check_vma=False)
    x = jax.ShapeDtypeStruct((8, 16, 3), jnp.float32, sharding=jax.sharding.NamedSharding(mesh, split))
    return jax.jit(mapped).lower(x).compile().as_text()


SHARE = 16 * 3 * 4  # bytes of a device's part of the argument
ALL = ("outer", "inner")


@pytest.mark.parametrize(
    "function, groups, expected",
    [
        (lambda x: lax.psum(x, ALL), 8, {"all-reduce": 2 * 7 / 8 * SHARE}),
        (lambda x: lax.psum(x, "inner"), 4, {"all-reduce": 2 * 3 / 4 * SHARE}),
        (lambda x: lax.all_gather(x, ALL), 8, {"all-gather": 7 * SHARE}),
        (lambda x: lax.psum_scatter(x, ALL, scatter_dimension=1, tiled=True), 8, {"reduce-scatter": 7 / 8 * SHARE}),
        (lambda x: lax.ppermute(x, "inner", [(i, (i + 1) % 8) for i in range(8)]), 8, {"collective-permute": SHARE}),
        (
            lambda x: lax.fori_loop(0, 5, lambda i, x: lax.psum(jnp.sin(x), ALL), x),
            8,
            {"all-reduce": 5 * 2 * 7 / 8 * SHARE},
        ),
        (lambda x: x + 1, 8, {}),
    ],
    ids=["all-reduce", "in groups of 4", "all-gather", "reduce-scatter", "permute", "in a loop of 5", "none"],
)
def test_a_program_of_known_traffic(function, groups, expected):
    outputs = P(ALL) if expected.keys() <= {"reduce-scatter", "collective-permute"} else P()
    counted = collectives.bytes_exchanged(compiled(function, groups=groups, outputs=outputs))
    assert counted == pytest.approx(expected)


def test_a_loop_of_unknown_length_is_not_guessed():
    def function(x):
        return lax.while_loop(lambda x: x.sum() < 9, lambda x: lax.psum(jnp.exp(x), ALL), x)

    with pytest.raises(ValueError, match="a loop of unknown length has a collective"):
        collectives.bytes_exchanged(compiled(function))


@pytest.mark.parametrize(
    "line, devices, expected",
    [
        (
            "ag-start = ((s32[1024],s32[512]), (s32[4096],s32[2048])) all-gather-start(p.0,p.1), dimensions={0}, "
            "use_global_device_ids=true, replica_groups={{0,1,2,3}}, channel_id=1",
            4,
            3 / 4 * 4 * (4096 + 2048),
        ),
        ("rs_0 = ((f32[2]), f32[1]) reduce-scatter-start(p1), to_apply=reduce, dimensions={0}", 2, 1 / 2 * 4 * 2),
        (
            "start = (u32[2], u32[2], u32[], u32[]) collective-permute-start(p), source_target_pairs={{0,1}, {1,0}}",
            2,
            8,
        ),
        (
            "%a = (f32[2,3]{1,0}, bf16[5]{0}) all-reduce(%x, %y), replica_groups=[2,4]<=[8], to_apply=%add",
            8,
            2 * 3 / 4 * 34,
        ),
    ],
)
def test_forms_that_other_backends_print(line, devices, expected):
    """Operations that begin and end apart, of one and of several arrays; groups as a list, as an iota, and left out.

    Source: the first three from tests of https://github.com/openxla/xla (gpu_hlo_cost_analysis_test.cc,
    gpu_latency_hiding_scheduler_test.cc, convert_async_collectives_to_sync_test.cc).
    """
    text = f"HloModule m, num_partitions={devices}\n\nENTRY %main (x: f32[]) -> f32[] {{\n  {line}\n}}\n"
    assert sum(collectives.bytes_exchanged(text).values()) == pytest.approx(expected)


@pytest.mark.thorough
def test_a_training_step_moves_what_it_must():
    """pmap: the gradients and what is logged; fsdp: weights and gradients, once each, and what is logged."""
    config = tiny_config()
    pmap, fsdp = (
        collectives.of_training(Experiment(config), strategy, collectives.compiled_step(Experiment(config), strategy))
        for strategy in (Pmap(), Fsdp())
    )
    assert set(pmap.bytes) == {"all-reduce"}
    assert pmap.bound == fsdp.bound > 80_000
    assert pmap.total == pytest.approx(pmap.bound, rel=0.002)  # biases that only move a softmax have no gradient
    for kind in ("reduce-scatter", "all-gather"):
        assert fsdp.bytes[kind] == pytest.approx(fsdp.bound / 2, rel=0.002)
    assert fsdp.total == pytest.approx(fsdp.bound, rel=0.02)


def counted(line, devices=4, header="num_partitions={}", more=""):
    """The bytes of a program of one line."""
    head = f"HloModule m, {header.format(devices)}"
    return collectives.bytes_exchanged(f"{head}\n\n{more}ENTRY %main (x: f32[]) -> f32[] {{\n  {line}\n}}\n")


@pytest.mark.parametrize(
    "line, kind, expected",
    [
        ("a = f32[8,2]{1,0} all-reduce(x), to_apply=add", "all-reduce", 2 * 3 / 4 * 64),
        ("a = f32[8,2]{1,0} all-gather(x), dimensions={0}", "all-gather", 3 / 4 * 64),
        ("a = f32[8,2]{1,0} reduce-scatter(x), to_apply=add", "reduce-scatter", 3 * 64),
        ("a = f32[8,2]{1,0} all-to-all(x)", "all-to-all", 3 / 4 * 64),
        ("a = f32[8,2]{1,0} ragged-all-to-all(x)", "ragged-all-to-all", 3 / 4 * 64),
        ("a = f32[8,2]{1,0} collective-broadcast(x)", "collective-broadcast", 64),
        ("a = f32[8,2]{1,0} collective-permute(x)", "collective-permute", 64),
        ("a = (f32[8,2], f32[8,2]) collective-permute-start(x)", "collective-permute", 64),
        ("a = (f32[8], f32[32]) all-gather-start(x)", "all-gather", 3 / 4 * 128),
        ("a = (f32[32], f32[8]) reduce-scatter-start(x)", "reduce-scatter", 3 / 4 * 128),
        ("a = f32[8,2]{1,0} all-reduce-start(x)", "all-reduce", 2 * 3 / 4 * 64),
        ("a = pred[16]{0} all-gather(x)", "all-gather", 3 / 4 * 16),
        ("a = f8e4m3fn[16]{0} all-gather(x)", "all-gather", 3 / 4 * 16),
        ("a = s4[16]{0} all-gather(x)", "all-gather", 3 / 4 * 8),
        ("a = bf16[] all-reduce(x)", "all-reduce", 2 * 3 / 4 * 2),
        ("a = c64[3]{0} all-gather(x), replica_groups={{0,2},{1,3}}", "all-gather", 1 / 2 * 24),
        ("a = f32[16]{0} all-gather(x), replica_groups=[2,2]<=[4]", "all-gather", 1 / 2 * 64),
        ("a = f32[16]{0} all-gather(x), replica_groups=[1,4]<=[4]", "all-gather", 3 / 4 * 64),
        ("a = f32[30]{0} all-gather(x), replica_groups=mesh['a'=3,'b'=5] {'b'}", "all-gather", 4 / 5 * 120),
        ("a = f32[30]{0} all-gather(x), replica_groups=mesh['a'=3,'b'=5] {'a','b'}", "all-gather", 14 / 15 * 120),
    ],
)  # fmt: skip
def test_an_operation_sends_what_its_formula_says(line, kind, expected):
    """Of the 4 devices there are, or of those of its groups; ends of operations send nothing again."""
    assert counted(line) == pytest.approx({kind: expected})
    assert counted(f"{line}\n  b = f32[8] {kind}-done(a)") == pytest.approx({kind: expected})


@pytest.mark.parametrize(
    "header, devices",
    [("num_partitions=4", 4), ("replica_count=3", 3), ("replica_count=2, num_partitions=4", 8), ("x", 1)],
)
def test_devices_are_all_replicas_of_all_partitions(header, devices):
    found = counted("a = f32[8,2]{1,0} all-gather(x)", header=header)
    assert found == pytest.approx({"all-gather": (devices - 1) / devices * 64})


LOOPS = """%body (x: f32[]) -> f32[] {{
  c = f32[4] collective-permute(x)
}}

%outer (x: f32[]) -> f32[] {{
  w = f32[] while(x), condition=%none, body=%body, backend_config={{"known_trip_count":{{"n":"{inner}"}}}}
}}

"""


def test_loops_within_loops_and_all_branches_count():
    loop = 'w = f32[] while(x), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"3"}}'
    assert counted(loop, more=LOOPS.format(inner=5)) == {"collective-permute": 15 * 16}
    branches = "b = f32[] conditional(x), branch_computations={%outer, %body}"
    assert counted(branches, more=LOOPS.format(inner=5)) == {"collective-permute": 6 * 16}
    either = "b = f32[] conditional(x), true_computation=%body, false_computation=%outer"
    assert counted(either, more=LOOPS.format(inner=2)) == {"collective-permute": 3 * 16}
    called = "b = f32[] fusion(x), kind=kLoop, calls=%body\n  d = f32[] call(x), to_apply=%body"
    assert counted(called, more=LOOPS.format(inner=2)) == {"collective-permute": 2 * 16}


def test_an_unknown_loop_around_a_known_one_is_not_guessed():
    with pytest.raises(ValueError, match="a loop of unknown length has a collective: c = f32"):
        counted("w = f32[] while(x), condition=%c, body=%outer", more=LOOPS.format(inner=5))


def test_the_bound_is_of_the_parameters_and_their_devices(monkeypatch):
    """2 (n - 1) / n times their bytes, whatever their dtypes."""
    params = {"a": jax.ShapeDtypeStruct((3, 5), jnp.float32), "b": jax.ShapeDtypeStruct((7,), jnp.bfloat16)}
    monkeypatch.setattr(collectives, "abstract_state", lambda config: SimpleNamespace(params=params))
    text = "HloModule m, num_partitions=2\n\nENTRY %main (x: f32[]) -> f32[] {\n  a = f32[4] all-gather(x)\n}\n"
    for n in (2, 8):
        found = collectives.of_training(None, SimpleNamespace(num_devices=n), SimpleNamespace(as_text=lambda: text))
        assert found.bound == pytest.approx(2 * (n - 1) / n * (60 + 14)) and found.bytes == {"all-gather": 8}
    assert collectives.Traffic({"a": 3.0, "b": 4.0}, 1.0).total == 7
