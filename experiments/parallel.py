"""The mapping of per-device programs over devices. Programs take `axis_name=None` to mean alone.

`Pmap` runs one program per local device: whatever is mapped has a leading axis of one entry per device.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"


class Pmap:
    """One program per device with `jax.pmap`; gradients are averaged by the program with `lax.pmean`.

    Attributes:
        devices: the devices that share the work.
    """

    def __init__(self, devices: list[jax.Device] | None = None):
        self.devices = list(devices or jax.local_devices())

    @property
    def num_devices(self) -> int:
        """How many devices share the work."""
        return len(self.devices)

    def map(self, function: Callable, *, in_axes: Any, donate_argnums: tuple[int, ...] = ()) -> Callable:
        """`function` on every device at once, compiled; collectives inside use `AXIS`."""
        return jax.pmap(function, axis_name=AXIS, in_axes=in_axes, devices=self.devices, donate_argnums=donate_argnums)

    def replicate(self, tree: Any) -> Any:
        """A copy of every leaf on each device, with the leading axis."""
        sharding = NamedSharding(Mesh(np.array(self.devices), (AXIS,)), PartitionSpec(AXIS))

        def put(leaf):
            leaf = np.asarray(leaf)
            return jax.device_put(np.broadcast_to(leaf, (self.num_devices, *leaf.shape)), sharding)

        return jax.tree.map(put, tree)

    def first(self, tree: Any) -> Any:
        """The first device's copy of a replicated tree, without the leading axis; waits for the tree.

        On CPU devices, small programs that queue up behind one that is still averaging over devices can hold it up for ever.
        """
        jax.block_until_ready(tree)
        return jax.tree.map(lambda x: x[0], tree)

    def read(self, tree: Any) -> Any:
        """`first` as numpy arrays: no program runs for it, so that the devices may be at work on another call."""
        return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data).reshape(x.shape[1:]), tree)

    def shard(self, tree: Any, axis: int = 0) -> Any:
        """Splits `axis` of every leaf evenly over the devices, which become the leading axis."""

        def split(x):
            shape = (*x.shape[:axis], self.num_devices, x.shape[axis] // self.num_devices, *x.shape[axis + 1 :])
            order = (axis, *range(axis), *range(axis + 1, len(shape)))
            return x.reshape(shape).transpose(order)

        return jax.tree.map(split, tree)

    def gather(self, tree: Any) -> Any:
        """Undoes `shard` along the first axis."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


STRATEGIES = {"pmap": Pmap}
