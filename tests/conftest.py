"""All tests run on 8 virtual CPU devices, with a compilation cache that outlives them.

Programs are compiled with fewer optimizations, in half the time; the test of speed turns them on again.
"""

import os
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 8)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ornstein" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_disable_most_optimizations", True)
