"""How the test session compiles. Import it before JAX: XLA reads its flags once.

Most seconds of this suite are compilations of tiny models, which nobody runs for long. So XLA optimizes little,
and every program is compiled once for all test processes and the programs that they start. `XLA_FLAGS= pytest ...`
compiles as users do.
"""

from __future__ import annotations

import atexit
import compileall
import os
import shutil
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

QUICK_COMPILATION = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if version("jaxlib").startswith("0.10."):  # later ones have no others, and no such flag
    QUICK_COMPILATION.append("--xla_cpu_use_fusion_emitters=false")
ROOT = Path(__file__).resolve().parents[2]
CACHE_VARIABLE = "THINKPRM_JAX_CACHE"


def start() -> None:
    """Sets what this process and those that it starts inherit; what the caller's environment says stays."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a job in the background, and of all that it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("XLA_FLAGS", " ".join(QUICK_COMPILATION))
    if CACHE_VARIABLE not in os.environ:  # test processes inherit the folder of the one that started them
        os.environ[CACHE_VARIABLE] = folder = tempfile.mkdtemp(prefix="thinkprm_jax_tests_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        if sys.dont_write_bytecode:  # else every program that a test starts compiles all our modules again
            for package in ("thinkprm_jax", "train", "infer"):
                compileall.compile_dir(ROOT / package, quiet=2)

    from thinkprm_jax.runtime import enable_compilation_cache

    enable_compilation_cache()


start()
