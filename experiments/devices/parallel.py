"""Parallel strategies: the mapping of programs over the devices of all processes.

Programs are written for one device: they see a shard of the batch and the full weights, and average over the mapped
axis `AXIS`; with `axis_name=None` they run on one device. A strategy maps such a program over devices. The layout of
its arrays on the devices is private to the strategy: `place` distributes a tree, `whole` returns it as arrays of the
original shapes, for checkpoints.

- `Pmap`: one program per device with `jax.pmap`; the training state is replicated and gradients are averaged.
- `Fsdp`: `jax.jit` over a mesh; parameters, optimizer state and moving averages are sharded over devices. For a
  gradient the weights are gathered, and the sum of the gradients over devices is scattered (Rajbhandari et al. (2020),
  https://arxiv.org/abs/1910.02054). The communication volume is that of the all-reduce of `Pmap`.

Devices are ordered by process: process h of n holds the h-th of n equal parts of the global batch. The position of an
example in the global batch therefore depends neither on the strategy nor on the number of processes.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"

# Kinds of arguments and results of a mapped program.
STATE = "state"  # training state or weights, distributed by `place`; the program sees the full arrays
BATCH = "batch"  # examples; the program sees the shard of its device
SAME = "same"  # replicated: equal on all devices


class Strategy:
    """Base class of the strategies.

    Attributes:
        devices: the devices of all processes that take part, in the order of processes.
    """

    axis_name = AXIS

    def __init__(self, devices: list[jax.Device] | None = None):
        processes = range(jax.process_count())
        self.devices = list(devices or [d for index in processes for d in jax.local_devices(process_index=index)])
        self.mesh = Mesh(np.array(self.devices), (AXIS,))

    @property
    def num_devices(self) -> int:
        """The number of devices."""
        return len(self.devices)

    @property
    def local_devices(self) -> list[jax.Device]:
        """The devices of this process."""
        return [device for device in self.devices if device.process_index == jax.process_index()]

    def rows(self, size: int) -> slice:
        """Returns the slice of this process in a global batch of `size` examples."""
        first, share = self.devices.index(self.local_devices[0]), size // self.num_devices
        return slice(first * share, (first + len(self.local_devices)) * share)

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Returns the partition of an array of this shape in the training state."""
        raise NotImplementedError

    def layout(self, tree: Any) -> Any:
        """Returns the shapes, dtypes and shardings of a training state or of weights, for restoring.

        The leaves are `jax.ShapeDtypeStruct` with a sharding.
        """

        def leaf(x):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(self.mesh, self.spec(x.shape)))

        return jax.tree.map(leaf, tree)

    def _is_placed(self, x: Any) -> bool:
        sharding = NamedSharding(self.mesh, self.spec(np.shape(x)))
        return isinstance(x, jax.Array) and x.sharding.is_equivalent_to(sharding, x.ndim)

    def place(self, tree: Any) -> Any:
        """Distributes a training state or weights over the devices; arrays that are already distributed are not copied.

        Args:
            tree: equal in all processes.
        """

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
        """Returns a result of `place` or of a mapped program as global arrays of all processes, without a copy."""
        raise NotImplementedError

    def to_host(self, tree: Any) -> Any:
        """Returns a result of `place` or of a mapped program as numpy arrays, in every process.

        A collective: all processes must call it.
        """

        def fetch(x):
            is_local = x.is_fully_addressable or x.is_fully_replicated
            return np.asarray(x) if is_local else multihost_utils.process_allgather(x, tiled=True)

        return jax.tree.map(fetch, self.whole(tree))


class Pmap(Strategy):
    """One program per device with `jax.pmap`; the training state is replicated on every device."""

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Returns the replicated partition."""
        return PartitionSpec()

    def _is_placed(self, x: Any) -> bool:
        """Returns True for replicated arrays: results of `jax.pmap` are on local devices only, but equal everywhere."""
        replicated = isinstance(x, jax.Array) and x.is_fully_replicated
        return replicated and x.sharding.device_set in (set(self.devices), set(self.local_devices))

    def create(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Computes a training state or weights with `jax.jit(function, **options)` and replicates them."""
        return self.place(jax.jit(function, **options)(*arguments))

    def mean_gradient(self, function: Callable) -> Callable:
        """Returns `function`, whose (value, gradient) is averaged over devices."""
        return lambda *arguments: lax.pmean(function(*arguments), AXIS)

    def map(
        self, function: Callable, inputs: tuple[str, ...], outputs: Any, donate_argnums: tuple[int, ...] = ()
    ) -> Callable:
        """Returns `function` compiled and mapped over all devices.

        Args:
            function: for one device; collectives inside use `AXIS`.
            inputs: STATE, BATCH or SAME for each argument; at least one is a BATCH, from `shard`.
            outputs: STATE, BATCH or SAME for each result.
            donate_argnums: arguments whose memory may be reused for the results.
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
        """Returns (state, batches, n) -> (state, metrics) compiled for all devices; the state's memory is donated."""
        return self.map(train_steps, (STATE, BATCH, SAME), (STATE, SAME), donate_argnums=(0,))

    def whole(self, tree: Any) -> Any:
        """Returns a result of `place` or of a mapped program as global arrays of all processes, without a copy."""
        sharding = NamedSharding(self.mesh, PartitionSpec())

        def as_global(x):
            if jax.process_count() == 1 or not x.is_fully_addressable:
                return x
            copies = [shard.data for shard in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

        return jax.tree.map(as_global, tree)

    def shard(self, tree: Any, axis: int = 0) -> Any:
        """Splits `axis` of this process's examples evenly over its devices; the devices are the new leading axis."""
        devices = len(self.local_devices)

        def split(x):
            shape = (*x.shape[:axis], devices, x.shape[axis] // devices, *x.shape[axis + 1 :])
            order = (axis, *range(axis), *range(axis + 1, len(shape)))
            return x.reshape(shape).transpose(order)

        return jax.tree.map(split, tree)

    def gather(self, tree: Any) -> Any:
        """Returns BATCH results of a mapped program of all processes, in every process, in the order of examples."""

        def join(x):
            x = np.asarray(x).reshape(-1, *x.shape[2:])
            return x if jax.process_count() == 1 else multihost_utils.process_allgather(x, tiled=True)

        return jax.tree.map(join, tree)


class Fsdp(Strategy):
    """Fully sharded data parallelism: `jax.jit` over a mesh with a sharded training state.

    An array is split along its largest axis whose size the number of devices divides (the last one of equal size); an
    array without such an axis (a scalar, a small bias) is replicated. The gradient is a program per device on gathered
    weights (`jax.shard_map`). The update is written for full arrays and partitioned by XLA, so norms over all
    parameters, projections and optimizers that act on matrices are exact.
    """

    def spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Returns the partition along the largest axis whose size the number of devices divides."""
        axis = self._split_axis(shape)
        return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)

    def _split_axis(self, shape: tuple[int, ...]) -> int | None:
        divisible = [axis for axis, size in enumerate(shape) if size and size % self.num_devices == 0]
        return max(divisible, key=lambda axis: (shape[axis], axis), default=None)

    def _shardings(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: x.sharding, self.layout(tree))

    def create(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Computes a training state or weights with `jax.jit(function, **options)`, sharded over devices.

        Each device computes its shard, so no device needs the memory of the full state.
        """
        shardings = self._shardings(jax.eval_shape(function, *arguments))
        return jax.jit(function, out_shardings=shardings, **options)(*arguments)

    def _specs(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: self.spec(x.shape), tree)

    def mean_gradient(self, function: Callable) -> Callable:
        """Returns (params, batch, step, frozen) -> (value, gradient), the results of `function` averaged over devices.

        Gradients are sharded like `params`; the frozen weights are gathered like `params`.
        """

        def scatter(g):
            axis = self._split_axis(g.shape)
            if axis is None:
                return lax.pmean(g, AXIS)
            return lax.psum_scatter(g, AXIS, scatter_dimension=axis, tiled=True) / self.num_devices

        def averaged(params, batch, step, frozen=None):
            def on_device(shares, batch, step, frozen_shares):
                full_params, full_frozen = self._gathered(shares, params), self._gathered(frozen_shares, frozen)
                value, gradient = function(full_params, batch, step, full_frozen)
                return lax.pmean(value, AXIS), jax.tree.map(scatter, gradient)

            specs = self._specs(params)
            inputs = (specs, PartitionSpec(AXIS), PartitionSpec(), self._specs(frozen))
            return self._on_devices(on_device, inputs, (PartitionSpec(), specs))(params, batch, step, frozen)

        return averaged

    def _gathered(self, shares: Any, whole: Any) -> Any:
        """Returns full arrays, with the shapes of `whole`, from the shares of all devices."""

        def join(share, x):
            axis = self._split_axis(x.shape)
            return share if axis is None else lax.all_gather(share, AXIS, axis=axis, tiled=True)

        return jax.tree.map(join, shares, whole)

    def _on_devices(self, function: Callable, inputs: Any, outputs: Any) -> Callable:
        # check_vma=True would sum gradients with respect to replicated values over devices a second time.
        return jax.shard_map(function, mesh=self.mesh, in_specs=inputs, out_specs=outputs, check_vma=False)

    def map(self, function: Callable, inputs: tuple[str, ...], outputs: Any) -> Callable:
        """Returns `function` compiled and mapped over all devices; it sees the full weights.

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
        """Returns (state, batches, n) -> (state, metrics) compiled for all devices; the state's memory is donated."""

        def mapped(state, batches, n):
            shardings = self._shardings(state)
            state, metrics = train_steps(state, batches, n)
            return lax.with_sharding_constraint(state, shardings), metrics

        return jax.jit(mapped, donate_argnums=(0,))

    def whole(self, tree: Any) -> Any:
        """Returns `tree`: results of `place` and of mapped programs are global arrays already."""
        return tree

    def shard(self, tree: Any, axis: int = 0) -> Any:
        """Splits `axis` of the examples over all devices; each process passes its own examples."""

        def split(x):
            shape = (*x.shape[:axis], x.shape[axis] // len(self.local_devices) * self.num_devices, *x.shape[axis + 1 :])
            sharding = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))
            return jax.make_array_from_process_local_data(sharding, np.asarray(x), shape)

        return jax.tree.map(split, tree)

    def gather(self, tree: Any) -> Any:
        """Returns BATCH results of a mapped program of all processes, in every process, in the order of examples."""
        if jax.process_count() == 1:
            return jax.tree.map(np.asarray, tree)
        return multihost_utils.process_allgather(tree, tiled=True)


STRATEGIES = {"pmap": Pmap, "fsdp": Fsdp}
