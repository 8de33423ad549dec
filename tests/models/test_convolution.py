"""The convolution's own derivative rule against XLA's, and its cost inside a loop."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models.layers import trilinear
from models.layers.convolution import Conv, _geometry, convolution
from models.layers.trilinear import LAYOUTS
from tests.models.arrays import close, normal

GEOMETRIES = [
    # image, kernel, stride, dilation, padding
    ((5, 6), (3, 3), 1, 1, "SAME"),
    ((8, 7), (3, 3), 2, 1, "SAME"),
    ((7, 8), (4, 3), 2, 1, "SAME"),
    ((9, 7), (3, 3), (3, 2), (1, 2), "SAME"),
    ((8, 8), (3, 3), 1, 2, "VALID"),
    ((7, 6), (4, 4), 2, 1, ((3, 1), (0, 5))),
    ((6, 6), (1, 1), 2, 1, "SAME"),
    ((5, 4), (1, 2), 1, 1, ((2, 2), (3, 0))),  # padded beyond the kernel: negative padding in the gradient
]


def pair(value):
    return (value, value) if isinstance(value, int) else value


def xla(x, kernel, *, stride=1, dilation=1, padding="SAME"):
    stride, dilation = pair(stride), pair(dilation)
    return lax.conv_general_dilated(x, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=LAYOUTS[2])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("image, window, stride, dilation, padding", GEOMETRIES[1::2])
def test_derivatives_of_first_and_second_order_are_those_of_xla(x64, image, window, stride, dilation, padding):
    """Value, tangent, and the Hessian times a direction, both forward-over-reverse and reverse-over-forward."""
    x, kernel = normal(0, 2, *image, 3), normal(1, *window, 3, 4)
    direction = normal(2, *x.shape), normal(3, *kernel.shape)

    def derivatives(f):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(f(x, kernel, stride=stride, dilation=dilation, padding=padding)))

        def slope(x, kernel):
            return jax.jvp(loss, (x, kernel), direction)[1]

        gradient = jax.grad(loss, (0, 1))
        return slope(x, kernel), jax.jvp(gradient, (x, kernel), direction), jax.grad(slope, (0, 1))(x, kernel)

    close(derivatives(convolution), derivatives(xla))


@pytest.mark.parametrize("leg", trilinear.LEGS)
@pytest.mark.parametrize("image, window, stride, dilation, padding", GEOMETRIES)
def test_the_form_lowered_on_cpu_is_the_form_lowered_elsewhere(x64, leg, image, window, stride, dilation, padding):
    geometry = _geometry(image, window, pair(stride), pair(dilation), padding)
    legs = {
        "input": normal(0, 2, *image, 3),
        "kernel": normal(1, *window, 3, 4),
        "output": normal(2, 2, *geometry.output_size, 4),
    }
    a, b = (legs[operand] for operand in trilinear._operands(leg))
    close(trilinear.ON_CPU[leg](a, b, geometry), trilinear.ELSEWHERE[leg](a, b, geometry))


@jax.jit
def jitted_gradients(x, kernel):
    y, pullback = jax.vjp(functools.partial(convolution, stride=2), x, kernel)
    same_for_all = normal(2, *y.shape)  # a cotangent that vmap does not map: each gradient then maps one operand only
    return y, pullback(jnp.cos(y)), pullback(same_for_all)


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0), (1, 3)], ids=str)
def test_vmap_equals_a_loop(x64, mapped):
    """Over images, kernels or both, for the convolution and its gradients: the folding of axes into each other."""
    x, kernel = normal(0, 2, 5, 6, 3), normal(1, 3, 3, 3, 4)
    xs = x if mapped[0] is None else jnp.stack([x, 2 * x, x[::-1]], mapped[0])
    kernels = kernel if mapped[1] is None else jnp.stack([kernel, kernel[::-1], -kernel], mapped[1])

    def entry(array, axis, i):
        return array if axis is None else jnp.take(array, i, axis)

    looped = [jitted_gradients(entry(xs, mapped[0], i), entry(kernels, mapped[1], i)) for i in range(3)]
    close(
        jax.jit(jax.vmap(jitted_gradients, mapped))(xs, kernels),
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *looped),
    )


def test_jacobians_of_both_modes_equal_xla(x64):
    """The Jacobian is a vmap over unit vectors: of tangents in forward mode, of cotangents in reverse mode."""
    x, kernel = normal(0, 1, 4, 4, 2), normal(1, 3, 3, 2, 2)
    expected = jax.jacrev(xla, (0, 1))(x, kernel)
    close(jax.jacfwd(convolution, (0, 1))(x, kernel), expected)
    close(jax.jacrev(convolution, (0, 1))(x, kernel), expected)


def test_gradient_through_scan_remat_and_pmap_equals_xla(x64):
    x, kernel = normal(0, 2, 4, 4, 3), normal(1, 3, 3, 3, 3) / 9

    def loss(kernel, f=convolution):
        step = jax.checkpoint(lambda x, _: (jnp.tanh(f(x, kernel)), None))
        return jnp.sum(lax.scan(step, x, None, length=3)[0] ** 2)

    expected = jax.jit(jax.grad(functools.partial(loss, f=xla)))(kernel)
    close(jax.jit(jax.grad(loss))(kernel), expected)
    close(jax.pmap(jax.grad(loss))(kernel[None])[0], expected)


def test_bfloat16_rounds_the_float32_result():
    x, kernel = normal(0, 2, 8, 8, 16, dtype=jnp.bfloat16), normal(1, 3, 3, 16, 16, dtype=jnp.bfloat16)

    def gradients(x, kernel):
        y, pullback = jax.vjp(convolution, x, kernel)
        return y, *pullback(jnp.ones_like(y))

    exact = gradients(x.astype(jnp.float32), kernel.astype(jnp.float32))
    for rounded, value in zip(gradients(x, kernel), exact, strict=True):
        assert rounded.dtype == jnp.bfloat16
        np.testing.assert_allclose(rounded.astype(jnp.float32), value, rtol=2**-7, atol=2**-8 * float(jnp.std(value)))


def test_layer_starts_with_glorots_variance():
    variables = Conv(64, kernel_size=3).init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
    kernel = variables["params"]["kernel"]
    limit = np.sqrt(3 / (9 * (32 + 64) / 2))
    assert 0.98 * limit < float(jnp.max(jnp.abs(kernel))) <= limit
    np.testing.assert_allclose(jnp.std(kernel), limit / np.sqrt(3), rtol=0.02)


def test_misfits_are_refused():
    with pytest.raises(ValueError, match="3, 3, 2, 4"):
        convolution(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 2, 4)))
    with pytest.raises(ValueError, match="smaller than the dilated kernel"):
        convolution(jnp.zeros((1, 2, 2, 3)), jnp.zeros((3, 3, 3, 4)), padding="VALID")
    with pytest.raises(TypeError, match="bfloat16"):
        convolution(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 4), jnp.bfloat16))


@pytest.fixture
def optimized():
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="XLA's loops are slow on CPU only")
def test_a_gradient_in_a_loop_costs_what_it_costs_alone(optimized):
    """XLA's own kernel gradient would take some twenty times as long in this loop."""
    n_steps, x, kernel = 4, normal(0, 32, 8, 8, 48, dtype=jnp.float32), normal(1, 3, 3, 48, 48, dtype=jnp.float32)

    def descend(state, _=None):
        dx, dkernel = jax.grad(lambda x, kernel: jnp.sum(convolution(x, kernel) ** 2), (0, 1))(*state)
        return (state[0] - 1e-9 * dx, state[1] - 1e-9 * dkernel), None

    alone = jax.jit(lambda state: descend(state)[0])
    looped = jax.jit(lambda state: lax.scan(descend, state, None, length=n_steps)[0])
    jax.block_until_ready((alone((x, kernel)), looped((x, kernel))))

    def seconds(f):
        start = time.perf_counter()
        jax.block_until_ready(f((x, kernel)))
        return time.perf_counter() - start

    # Interleaved, so that a busy machine slows both.
    pairs = [(seconds(alone), seconds(looped) / n_steps) for _ in range(15)]
    assert min(looped for _, looped in pairs) < 1.5 * min(alone for alone, _ in pairs)


def test_the_gradient_of_a_pointwise_layer_is_of_matrices():
    """With three axes or more, XLA's CPU backend copies image and cotangent, transposed, for the gradient of the kernel."""

    def products(x, kernel):
        jaxpr = jax.make_jaxpr(jax.grad(lambda x, kernel: (convolution(x, kernel) ** 2).sum(), (0, 1)))(x, kernel)
        return [v.aval.ndim for e in jaxpr.eqns if e.primitive is jax.lax.dot_general_p for v in e.invars]

    assert products(jnp.ones((2, 4, 6, 3)), jnp.ones((1, 1, 3, 5))) == 6 * [2]
