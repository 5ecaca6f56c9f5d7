#!/usr/bin/env bash
# jax 0.10.2: the persistent compilation cache (jax_compilation_cache_dir) keeps a program of one device once for each
# device that runs it. Four replicas of a model in one process compile every program four times, at the first start,
# and at a later one on more devices, and the folder is four times as large; a server that moves to another device of
# the same machine compiles anew. The device assignment is part of the key: jax/_src/cache_key.py leaves it out for
# GPUs alone. Tracing and lowering are shared within a process. Instead: compile for all devices side by side, in
# threads (XLA lets go of the GIL), and fill the cache with as many devices as will be used.
# Shown by the entries of the cache on four CPU devices.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2

cat > "$work/run.py" << 'PYTHON'
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

folder = sys.argv[1]
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
traced = 0


@jax.jit
def program(x):
    global traced
    traced += 1
    return jnp.sin(x) @ x


for device in jax.devices():
    program(jax.device_put(np.ones((64, 64), np.float32), device)).block_until_ready()
    entries = [name for name in os.listdir(folder) if name.startswith("jit_program") and name.endswith("-cache")]
    print(f"{device}: traced {traced} time, {len(entries)} in the cache")
PYTHON
mkdir "$work/cache"
XLA_FLAGS=--xla_force_host_platform_device_count=4 JAX_PLATFORMS=cpu \
    "$work/env/bin/python" "$work/run.py" "$work/cache" | tee "$work/seen"

diff - "$work/seen" << 'SEEN'
cpu:0: traced 1 time, 1 in the cache
cpu:1: traced 1 time, 2 in the cache
cpu:2: traced 1 time, 3 in the cache
cpu:3: traced 1 time, 4 in the cache
SEEN
