"""All tests run on 8 virtual CPU devices.

Programs are compiled with fewer optimizations, in half the time; the test of speed turns them on again.
"""

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)
