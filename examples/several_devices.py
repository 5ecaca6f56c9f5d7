"""Score a batch on several devices at once, and check that their number changes nothing.

    XLA_FLAGS=--xla_force_host_platform_device_count=4 JAX_PLATFORMS=cpu python examples/several_devices.py

The flag makes four devices of one CPU, so that this runs anywhere; on a machine with accelerators leave it out.
Axis `data` splits the slots (solutions that are judged at the same time), `tensor` splits the model itself.
"""

from __future__ import annotations

import json
import time
from importlib.resources import files

import jax

from thinkprm_jax import ThinkPRM, make_mesh


def main() -> None:
    rows = [
        json.loads(line) for line in (files("thinkprm_jax.bundled") / "examples.jsonl").read_text().splitlines()
    ]
    problems, steps = [row["problem"] for row in rows], [row["steps"] for row in rows]

    devices = jax.device_count()
    tensor = 2 if devices % 2 == 0 else 1
    scores = {}
    for name, mesh in {
        "one device": make_mesh(data=1, tensor=1, devices=jax.devices()[:1]),
        f"{devices} devices": make_mesh(data=devices // tensor, tensor=tensor),
    }.items():
        prm = ThinkPRM("mini", mesh=mesh, dtype="float32", slots=8)
        start = time.perf_counter()
        results = prm.predict_correctness_batch(problems, steps)
        print(f"{name}: mesh {dict(mesh.shape)}, {time.perf_counter() - start:.1f} s with compilation")
        scores[name] = [result["prefix_score"] for result in results]

    one, many = scores.values()
    for row, left, right in zip(rows, one, many, strict=True):
        print(f"{row['id']}\t{left:.4f}\t{right:.4f}")
    print(f"largest difference: {max(abs(a - b) for a, b in zip(one, many, strict=True)):.0e}")


if __name__ == "__main__":
    main()
