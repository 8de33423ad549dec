"""CT without the rays through metal: what they would have measured changes nothing, for any method or figure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from PIL import Image

from experiments import factory
from experiments.factory.experiment import Experiment
from experiments.inverse import problems
from experiments.inverse import scanners as reconstruction
from experiments.inverse.build import conditioned, obstacle, with_sampling
from sde_lib import exact, inverse
from tests.experiments.tiny import tiny_config

SIZE = 6
SHAPE = (SIZE, SIZE, 1)
METAL = np.zeros((SIZE, SIZE), bool)
METAL[1:3, 4] = True
NOISE = 0.1


@struct.dataclass(kw_only=True)
class Kept(inverse.LinearMeasurement):
    """The rays that are not lost, (B, rays), as if there were no others."""

    radon: inverse.Radon
    rays: jax.Array
    mask: None = None  # of its rays, none is lost

    def forward(self, x):
        return self.radon.forward(x).reshape(len(x), -1)[:, self.rays]

    def pseudo_inverse(self, y):
        sinogram = jnp.zeros((len(y), *jax.eval_shape(self.radon.forward, jnp.zeros((1, *SHAPE))).shape[1:]))
        flat = sinogram.reshape(len(y), -1).at[:, self.rays].set(y)
        return self.radon.pseudo_inverse(flat.reshape(sinogram.shape))


IMAGE = jnp.asarray(0.3 * np.random.default_rng(0).normal(size=(1, *SHAPE)), jnp.float32)


def stepped(name, measurement, y, asks=None):
    """A step of a method from the image, and what it takes the data to be."""
    spec = problems.METHODS[name]
    config = with_sampling(tiny_config(), name)
    prior = exact.Gaussian(factory.sde(config, config.sampling.t_min), std=0.5)
    of = reconstruction.scan_problem("ct", measurement, NOISE)
    solved, unit = reconstruction.for_methods(of, asks or spec.asks)
    assert obstacle(Experiment(config), name, spec.settings, solved, SHAPE) is None

    @jax.jit
    def step(measurement, y):
        denoiser, method = conditioned(
            Experiment(config), name, spec.settings, prior, measurement, y, solved.noise, SHAPE
        )
        times = jnp.asarray([0.4, 0.3, 0.2])
        carry = method.init(IMAGE, denoiser, times)
        keys = jax.random.split(jax.random.key(1), 1)
        return method.step(carry, keys, IMAGE, times[0], times[1], denoiser)[1], denoiser(IMAGE, times[1])

    return step(solved.measurement, of.select(y) / unit)


@pytest.fixture
def metal(tmp_path):
    """The file of the metal."""
    Image.fromarray(255 * METAL.astype(np.uint8)).save(tmp_path / "metal.png")
    return tmp_path / "metal.png"


@pytest.fixture
def masked(metal):
    return reconstruction.simulated("ct", SHAPE, {"angles": 5, "arc": 180.0, "metal": str(metal)})


def test_rays_through_metal_are_lost(masked):
    """At an angle of 0 those of the metal's column: the others do not see it."""
    there = np.asarray(masked.mask)
    assert there.shape == (5, masked.num_detectors()) and 0.3 < there.mean() < 0.8
    np.testing.assert_array_equal(there[0], np.arange(10) != 2 + 4)
    assert np.abs(masked.forward(jnp.asarray(METAL, float)[None, ..., None])).max() == 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", problems.METHODS)
def test_lost_rays_are_as_if_they_had_never_been(masked, name):
    """A step of each method, against the same with the other rays alone; and what is put at lost rays does not count."""
    kept = Kept(event_shape=SHAPE, radon=masked.replace(mask=None), rays=np.flatnonzero(masked.mask))
    y = masked.replace(mask=None).forward(IMAGE)
    found = stepped(name, masked, y + 7 * (masked.mask == 0)[..., None])
    expected = stepped(name, kept, y.reshape(1, -1)[:, kept.rays])
    for of_all, of_kept in zip(found, expected, strict=True):
        np.testing.assert_allclose(of_all, of_kept, rtol=1e-3, atol=1e-3)


PRODUCTS = [name for name, spec in problems.METHODS.items() if "products" in spec.asks]


@pytest.mark.thorough
@pytest.mark.parametrize("name", PRODUCTS)
def test_methods_of_products_do_the_same_with_a_decomposition_and_without(masked, name):
    y = masked.forward(IMAGE)
    expected = stepped(name, masked, y, asks="singular_values")
    for with_it, without in zip(expected, stepped(name, masked, y, asks="products"), strict=True):
        np.testing.assert_allclose(without, with_it, rtol=1e-3, atol=1e-3)
