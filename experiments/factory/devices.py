"""The mapping of a program over devices."""

import jax
from ml_collections import ConfigDict

from experiments.config.choices import choose
from experiments.devices.parallel import STRATEGIES, Strategy
from experiments.errors import UserError


def parallel(config: ConfigDict, devices: list[jax.Device] | None = None) -> Strategy:
    """The mapping over devices, by default all there are in all processes."""
    return choose("parallel.strategy", config.parallel.strategy, STRATEGIES)(devices)


def require_shares(config: ConfigDict, strategy: Strategy) -> None:
    """Makes sure that the devices can share the batch of training.

    Raises:
        UserError: they do not divide it.
    """
    count, batch = strategy.num_devices, config.data.batch_size
    if batch % count:
        hosts = "" if jax.process_count() == 1 else f" of {jax.process_count()} processes"
        raise UserError(
            f"data.batch_size={batch} cannot be shared by {count} devices{hosts}: choose a multiple of {count}"
        )
