"""Items a second by the mesh, on fake devices of this machine's processors: what data replicas cost, and what
fake devices can show of what they gain.

    python benchmarks/replicas.py [--items 48] [--repeats 3]

Every line is a process of its own, after one pass that compiles. "steps" are the decode steps of each replica:
in one program over all devices they would be equal, the longest of all. Fake devices share the processors, so two
replicas cannot be faster than one that has both processors for itself; what a second real device brings is not in
these figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

# name, devices, mesh
CASES = (
    ("one device", 1, ""),
    ("one of two devices", 2, ""),
    ("data=1 of two", 2, "data=1"),
    ("data=2", 2, "data=2"),
    ("tensor=2", 2, "tensor=2"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mesh", help="of one line; the others are not run")
    arguments = parser.parse_args()
    if arguments.mesh is not None:
        print(json.dumps(measure(arguments.mesh, arguments.items, arguments.repeats)))
        return
    print(f"{arguments.items} items, the fastest of {arguments.repeats} passes")
    for name, devices, mesh in CASES:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        command = [sys.executable, __file__, "--mesh", mesh, "--items", str(arguments.items)]
        command += ["--repeats", str(arguments.repeats)]
        answer = subprocess.run(
            command, env={**os.environ, "XLA_FLAGS": flags}, check=True, text=True, stdout=subprocess.PIPE
        )
        found = json.loads(answer.stdout.splitlines()[-1])
        print(
            f"{name:20} {found['rate']:7.2f} items/s  {found['cpu']:5.2f} CPU seconds a second  "
            f"steps {found['steps']}  workers {found['workers']}",
            flush=True,
        )
    print(f"dealing a request of 512 tokens to eight replicas: {dealing():.0f} us")


def measure(mesh: str, items: int, repeats: int) -> dict[str, object]:
    from thinkprm_jax import load_verifier, verifier_settings
    from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_task
    from thinkprm_jax.runtime import enable_compilation_cache
    from thinkprm_jax.verifier.placement import place_verifier

    enable_compilation_cache()
    settings, placed = place_verifier(verifier_settings("mini", max_length=512, slots=16), mesh or None)
    prm = load_verifier(settings, mesh=placed)
    cases = [(case.problem, case.steps) for case in arithmetic_task(0, "test", items * (repeats + 1)).cases]
    best, cpu, steps = 0.0, 0.0, [0]
    for repeat in range(repeats + 1):
        batch = cases[items * repeat : items * (repeat + 1)]
        before = [worker.stats.decode_steps for worker in prm.sampler._workers]
        began, used = time.perf_counter(), time.process_time()
        judged = dict(prm.verify(batch))
        seconds = time.perf_counter() - began
        assert all(verdict.error is None for verdict in judged.values())
        if repeat and items / seconds > best:
            best, cpu = items / seconds, (time.process_time() - used) / seconds
            steps = [worker.stats.decode_steps - b for worker, b in zip(prm.sampler._workers, before, strict=True)]
    return {"rate": best, "cpu": cpu, "steps": steps, "workers": prm.sampler.workers}


def dealing(requests: int = 2000) -> float:
    """Microseconds of the host for a request, eight replicas, prompts of 512 tokens, four chains each."""
    from thinkprm_jax.sampler.dealing import Dealer

    dealer, loads, busy = Dealer(8), [0] * 8, [False] * 8
    prompts = [[number // 4] * 512 for number in range(requests)]
    began = time.perf_counter()
    for prompt in prompts:
        dealer.note(prompt, dealer.choose(prompt, loads, busy))
    return (time.perf_counter() - began) / requests * 1e6


if __name__ == "__main__":
    main()
