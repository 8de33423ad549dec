"""The mapping of programs over the devices of all processes.

Programs are written once, for one device: they see a share of the batch and the whole weights, and average over the axis
`AXIS`; `axis_name=None` means alone. A strategy maps them. What it lays out on the devices is opaque to others: `place`
puts it there, `whole` gives it back as arrays of its own shapes, for checkpoints.

- `Pmap`: one program per device with `jax.pmap`; every device has all of the training state, and gradients are averaged.
- `Fsdp`: `jax.jit` over a mesh; every device has a share of the parameters, the optimizer's state and their averages. It
  gathers the weights for a gradient, whose sum over devices it scatters again (Rajbhandari et al. (2020),
  https://arxiv.org/abs/1910.02054). Devices exchange as many bytes as for the average of `Pmap`.

Devices are ordered by process, so that the batch of process h of n is the h-th of n equal parts of the global batch, in
which examples keep their places whatever the strategy and the number of processes.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"

# What an argument or a result of a mapped program is.
STATE = "state"  # laid out by `place`: training state or weights; the program sees it whole
BATCH = "batch"  # of examples: the program sees its device's share
SAME = "same"  # the same on all devices


class Strategy:
    """What the strategies share.

    Attributes:
        devices: those that share the work, of all processes, in the order of processes.
    """

    axis_name = AXIS

    def __init__(self, devices: list[jax.Device] | None = None):
        processes = range(jax.process_count())
        self.devices = list(devices or [d for index in processes for d in jax.local_devices(process_index=index)])
        self.mesh = Mesh(np.array(self.devices), (AXIS,))

    @property
    def num_devices(self) -> int:
        """How many devices share the work."""
        return len(self.devices)

    @property
    def local_devices(self) -> list[jax.Device]:
        """Those of them that are this process's."""
        return [device for device in self.devices if device.process_index == jax.process_index()]

    def rows(self, size: int) -> slice:
        """Which of the `size` examples of a global batch are this process's."""
        first, share = self.devices.index(self.local_devices[0]), size // self.num_devices
        return slice(first * share, (first + len(self.local_devices)) * share)

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """How an array of the training state lies on the devices."""
        raise NotImplementedError

    def layout(self, tree: Any) -> Any:
        """The shapes and dtypes of a training state or of weights, with how they lie on the devices: where to restore."""

        def leaf(x):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(self.mesh, self.spec(x.shape)))

        return jax.tree.map(leaf, tree)

    def _is_placed(self, x: Any) -> bool:
        sharding = NamedSharding(self.mesh, self.spec(np.shape(x)))
        return isinstance(x, jax.Array) and x.sharding.is_equivalent_to(sharding, x.ndim)

    def place(self, tree: Any) -> Any:
        """Lays out a training state or weights, which all processes have; what is laid out already stays as it is."""

        def put(x):
            sharding = NamedSharding(self.mesh, self.spec(np.shape(x)))
            if self._is_placed(x):
                return x
            if jax.process_count() == 1:
                return jax.device_put(x, sharding)
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(put, tree)

    def whole(self, tree: Any) -> Any:
        """What `place` or a mapped program gave, as arrays that all processes know; copies nothing."""
        raise NotImplementedError

    def to_host(self, tree: Any) -> Any:
        """The same as numpy arrays, in every process; all must ask."""

        def fetch(x):
            known = x.is_fully_addressable or x.is_fully_replicated
            return np.asarray(x) if known else multihost_utils.process_allgather(x, tiled=True)

        return jax.tree.map(fetch, self.whole(tree))


class Pmap(Strategy):
    """One program per device with `jax.pmap`; each device has the whole training state."""

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """On each device, whole."""
        return PartitionSpec()

    def _is_placed(self, x: Any) -> bool:
        """Results of `jax.pmap` are known to this process alone, though all have the same."""
        everywhere = isinstance(x, jax.Array) and x.is_fully_replicated
        return everywhere and x.sharding.device_set in (set(self.devices), set(self.local_devices))

    def create(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Lays out the training state or the weights that a function computes, compiled with `jax.jit`'s options."""
        return self.place(jax.jit(function, **options)(*arguments))

    def mean_gradient(self, function: Callable) -> Callable:
        """Averages over devices what (params, batch, step, frozen) -> (value, gradient) gives on each."""
        return lambda *arguments: lax.pmean(function(*arguments), AXIS)

    def map(
        self, function: Callable, inputs: tuple[str, ...], outputs: Any, donate_argnums: tuple[int, ...] = ()
    ) -> Callable:
        """`function` on every device at once, compiled.

        Args:
            function: for one device; collectives inside use `AXIS`.
            inputs: STATE, BATCH or SAME for each argument; at least one is a BATCH, from `shard`.
            outputs: the same for each result.
            donate_argnums: arguments whose memory the results may take.
        """
        axes = {STATE: None, BATCH: 0, SAME: None}
        return jax.pmap(
            function,
            axis_name=AXIS,
            in_axes=tuple(axes[kind] for kind in inputs),
            out_axes=axes[outputs] if isinstance(outputs, str) else tuple(axes[kind] for kind in outputs),
            devices=self.devices,
            donate_argnums=donate_argnums,
        )

    def map_training(self, train_steps: Callable) -> Callable:
        """(state, batches, n) -> (state, metrics) on all devices, compiled; it takes the state's memory."""
        return self.map(train_steps, (STATE, BATCH, SAME), (STATE, SAME), donate_argnums=(0,))

    def whole(self, tree: Any) -> Any:
        """What `place` or a mapped program gave, as arrays that all processes know; copies nothing."""
        sharding = NamedSharding(self.mesh, PartitionSpec())

        def known(x):
            if jax.process_count() == 1 or not x.is_fully_addressable:
                return x
            copies = [shard.data for shard in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

        return jax.tree.map(known, tree)

    def shard(self, tree: Any, axis: int = 0) -> Any:
        """Splits `axis` of this process's examples evenly over its devices, which become the leading axis."""
        devices = len(self.local_devices)

        def split(x):
            shape = (*x.shape[:axis], devices, x.shape[axis] // devices, *x.shape[axis + 1 :])
            order = (axis, *range(axis), *range(axis + 1, len(shape)))
            return x.reshape(shape).transpose(order)

        return jax.tree.map(split, tree)

    def gather(self, tree: Any) -> Any:
        """A mapped program's BATCH results of all processes, in every process, in the order of examples."""

        def join(x):
            x = np.asarray(x).reshape(-1, *x.shape[2:])
            return x if jax.process_count() == 1 else multihost_utils.process_allgather(x, tiled=True)

        return jax.tree.map(join, tree)


class Fsdp(Strategy):
    """`jax.jit` over a mesh; each device has a share of the training state (fully sharded data parallel).

    An array is split along its largest axis that the number of devices divides, the last of equals; an array that has none
    (a scalar, a small bias) is on every device. The gradient is a program per device on gathered weights
    (`jax.shard_map`); the update is written for the whole arrays and XLA splits it as they are, so that norms over
    parameters, projections and optimizers of whole matrices mean what they say.
    """

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Split along the largest axis that the number of devices divides."""
        axis = self._split_axis(shape)
        return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)

    def _split_axis(self, shape: tuple[int, ...]) -> int | None:
        divisible = [axis for axis, size in enumerate(shape) if size and size % self.num_devices == 0]
        return max(divisible, key=lambda axis: (shape[axis], axis), default=None)

    def _shardings(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: x.sharding, self.layout(tree))

    def create(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Lays out the training state or the weights that a function computes, compiled with `jax.jit`'s options.

        Each device computes its share, so that none needs the memory of the whole.
        """
        shardings = self._shardings(jax.eval_shape(function, *arguments))
        return jax.jit(function, out_shardings=shardings, **options)(*arguments)

    def _specs(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: self.spec(x.shape), tree)

    def mean_gradient(self, function: Callable) -> Callable:
        """Averages what (params, batch, step, frozen) -> (value, gradient) gives on each device.

        Gradients are split as params; the frozen weights are gathered as the others.
        """

        def scatter(g):
            axis = self._split_axis(g.shape)
            if axis is None:
                return lax.pmean(g, AXIS)
            return lax.psum_scatter(g, AXIS, scatter_dimension=axis, tiled=True) / self.num_devices

        def averaged(params, batch, step, frozen=None):
            def on_device(shares, batch, step, frozen_shares):
                whole = self._gathered(shares, params), self._gathered(frozen_shares, frozen)
                value, gradient = function(whole[0], batch, step, whole[1])
                return lax.pmean(value, AXIS), jax.tree.map(scatter, gradient)

            specs = self._specs(params)
            inputs = (specs, PartitionSpec(AXIS), PartitionSpec(), self._specs(frozen))
            return self._on_devices(on_device, inputs, (PartitionSpec(), specs))(params, batch, step, frozen)

        return averaged

    def _gathered(self, shares: Any, whole: Any) -> Any:
        """All devices' shares of each array, joined to one of the shape of `whole`."""

        def join(share, x):
            axis = self._split_axis(x.shape)
            return share if axis is None else lax.all_gather(share, AXIS, axis=axis, tiled=True)

        return jax.tree.map(join, shares, whole)

    def _on_devices(self, function: Callable, inputs: Any, outputs: Any) -> Callable:
        # Without check_vma, which would have gradients of replicated values summed over devices a second time.
        return jax.shard_map(function, mesh=self.mesh, in_specs=inputs, out_specs=outputs, check_vma=False)

    def map(self, function: Callable, inputs: tuple[str, ...], outputs: Any) -> Callable:
        """`function` on every device at once, compiled; it sees the weights whole.

        Args:
            function: for one device; collectives inside use `AXIS`.
            inputs: STATE, BATCH or SAME for each argument.
            outputs: BATCH or SAME for each result.
        """
        kinds = {BATCH: PartitionSpec(AXIS), SAME: PartitionSpec()}
        results = kinds[outputs] if isinstance(outputs, str) else tuple(kinds[kind] for kind in outputs)

        def mapped(*arguments):
            def on_device(*shares):
                triples = zip(inputs, shares, arguments, strict=True)
                return function(*(self._gathered(s, a) if kind == STATE else s for kind, s, a in triples))

            specs = tuple(
                self._specs(a) if kind == STATE else kinds[kind] for kind, a in zip(inputs, arguments, strict=True)
            )
            return self._on_devices(on_device, specs, results)(*arguments)

        return jax.jit(mapped)

    def map_training(self, train_steps: Callable) -> Callable:
        """(state, batches, n) -> (state, metrics) on all devices, compiled; it takes the state's memory."""

        def mapped(state, batches, n):
            shardings = self._shardings(state)
            state, metrics = train_steps(state, batches, n)
            return lax.with_sharding_constraint(state, shardings), metrics

        return jax.jit(mapped, donate_argnums=(0,))

    def whole(self, tree: Any) -> Any:
        """What `place` or a mapped program gave: they are arrays that all processes know."""
        return tree

    def shard(self, tree: Any, axis: int = 0) -> Any:
        """Splits `axis` of the examples over all devices; each process brings its own."""

        def split(x):
            shape = (*x.shape[:axis], x.shape[axis] // len(self.local_devices) * self.num_devices, *x.shape[axis + 1 :])
            sharding = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))
            return jax.make_array_from_process_local_data(sharding, np.asarray(x), shape)

        return jax.tree.map(split, tree)

    def gather(self, tree: Any) -> Any:
        """A mapped program's BATCH results of all processes, in every process, in the order of examples."""
        if jax.process_count() == 1:
            return jax.tree.map(np.asarray, tree)
        return multihost_utils.process_allgather(tree, tiled=True)


STRATEGIES = {"pmap": Pmap, "fsdp": Fsdp}
