"""NCSN and NCSNv2 with stages other than the published ones."""

import jax
import jax.numpy as jnp
import pytest

import models

STAGES = {
    "the last is dilated and wider": {"channel_multipliers": (1, 2), "dilations": (1, 2)},
    "each is dilated and wider": {"channel_multipliers": (1, 2, 4), "dilations": (1, 2, 4)},
    "the last is dilated and narrower": {"channel_multipliers": (2, 1), "dilations": (1, 2)},
    "the last is halved and wider": {"channel_multipliers": (1, 2), "dilations": (1, 1)},
    "published": {"channel_multipliers": (1, 2, 2, 2), "dilations": (1, 1, 2, 4)},
    "one": {"channel_multipliers": (1,), "dilations": (1,)},
}


@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES.keys())
@pytest.mark.parametrize("name", ["ncsn", "ncsnv2"])
def test_each_refine_block_has_the_width_of_the_stage_that_it_refines(name, stages):
    """The coarsest keeps its stage's; every other goes over to that of the next finer one, and takes the one before in."""
    network = models.create(name, channels=4, **stages)
    x, level = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x, level)
    assert jax.eval_shape(network.apply, variables, x, level).shape == x.shape
    widths = [4 * m for m in stages["channel_multipliers"]]
    inputs, weights = None, variables["params"]
    for stage in reversed(range(len(widths))):
        block = weights[f"refine_{stage}"]
        width = widths[stage] if inputs is None else widths[max(stage - 1, 0)]
        assert block["pool_0"]["kernel"].shape == (3, 3, width, width)
        fused = [block[f"fuse_{i}"]["kernel"].shape[2:] for i in range(2) if f"fuse_{i}" in block]
        assert fused == ([] if inputs is None else [(widths[stage], width), (inputs, width)])
        inputs = width
