"""How many bytes a second a checkpoint moves, and how long the training waits for it.

    python benchmarks/checkpoints.py /some/folder gs://bucket/some/folder --megabytes 500

Saves random weights with two moments of Adam, as a run does (`CheckpointStore`), several times at each place, and
reads the last one back. For a bucket on loopback, set STORAGE_EMULATOR_HOST, TENSORSTORE_GCS_HTTP_URL and
GOOGLE_AUTH_TOKEN_FOR_TESTING.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.storage import location

NOTICE = 30.0  # seconds that a Spot slice has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("places", nargs="+", help="folders, here or at gs://")
    parser.add_argument("--megabytes", type=int, default=500, help="of a checkpoint (500)")
    parser.add_argument("--arrays", type=int, default=24, help="into which they are divided (24)")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    size = arguments.megabytes * 10**6 // arguments.arrays // 4
    keys = jax.random.split(jax.random.key(0), arguments.arrays)
    state = {f"array_{number}": jax.random.normal(key, (size,)) for number, key in enumerate(keys)}
    jax.block_until_ready(state)
    written = sum(array.nbytes for array in state.values())
    print(f"{written / 1e6:,.0f} MB in {arguments.arrays} arrays, float32; median of {arguments.repeats}")
    print(f"{'place':10}{'waits s':>9}{'saved s':>9}{'MB/s':>8}{'in 30 s, GB':>13}{'read s':>8}{'MB/s':>8}")
    for place in arguments.places:
        waits, totals, reads = measure(place, state, arguments.repeats)
        rate, read = written / totals / 1e6, written / reads / 1e6
        kind = f"{place.partition('://')[0]}://" if "://" in place else "disk"
        line = f"{kind:10}{waits:9.2f}{totals:9.2f}{rate:8,.0f}{rate * NOTICE / 1e3:13.1f}{reads:8.2f}{read:8,.0f}"
        print(line, flush=True)


def measure(place: str, state: dict[str, jax.Array], repeats: int) -> tuple[float, float, float]:
    """Medians in seconds: until training goes on, until the checkpoint is whole, of reading it."""
    waits, totals, reads = [], [], []
    abstract = {name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding) for name, a in state.items()}
    with CheckpointStore(location(place), keep=1) as store:
        store.save(0, {"small": jnp.zeros(8)}, {"step": 0})  # what is imported and connected once
        store.wait()
        for step in range(1, repeats + 1):
            begun = time.perf_counter()
            store.save(step, state, {"step": step})
            waits.append(time.perf_counter() - begun)
            store.wait()
            totals.append(time.perf_counter() - begun)
        for _ in range(repeats):
            begun = time.perf_counter()
            jax.block_until_ready(store.restore(abstract)[0])
            reads.append(time.perf_counter() - begun)
    return statistics.median(waits), statistics.median(totals), statistics.median(reads)


if __name__ == "__main__":
    main()
