#!/usr/bin/env bash
# jax 0.10.2: on CPUs dynamic_update_slice of a bfloat16 array converts all of it to float32 and back, also where the array
# is donated and only some numbers of it change: XLA's CPU backend has no bfloat16 slice updates. Key-value caches are
# written so, one token of every row at a time, and a decode step then costs as much as going through the whole cache,
# once for each array in it. In float32 it costs nothing. Instead: keep the cache as uint16, and convert the bits of what
# is written and what is read.
# Shown by what the compiled programs hold, and by how much longer the bfloat16 one takes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2

cat > "$work/run.py" << 'PYTHON'
import time

import jax
import jax.numpy as jnp

SHAPE = 16, 8, 4096, 64
new = jnp.ones((16, 8, 1, 64), jnp.float32)


def write(cache, new, place):
    if cache.dtype == jnp.uint16:
        new = jax.lax.bitcast_convert_type(new.astype(jnp.bfloat16), jnp.uint16)
    return jax.lax.dynamic_update_slice(cache, new.astype(cache.dtype), (0, 0, place, 0))


seconds = {}
for name in ("float32", "bfloat16", "uint16"):
    cache = jnp.zeros(SHAPE, name)
    program = jax.jit(write, donate_argnums=0).lower(cache, new, 0).compile()
    text = program.as_text()
    whole = sum(f"f32[{','.join(map(str, SHAPE))}]" in line and "convert(" in line for line in text.splitlines())
    best = 1e9
    for place in range(12):
        start = time.perf_counter()
        cache = jax.block_until_ready(program(cache, new, place))
        best = min(best, time.perf_counter() - start)
    seconds[name] = best
    slow = best > 10 * seconds["float32"]
    print(f"{name}: converts all of it: {whole > 0}, more than 10 times as long as float32: {slow}")
PYTHON
JAX_PLATFORMS=cpu "$work/env/bin/python" "$work/run.py" | tee "$work/seen"

diff - "$work/seen" << 'SEEN'
float32: converts all of it: False, more than 10 times as long as float32: False
bfloat16: converts all of it: True, more than 10 times as long as float32: True
uint16: converts all of it: False, more than 10 times as long as float32: False
SEEN
