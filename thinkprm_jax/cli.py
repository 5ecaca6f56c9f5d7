"""`thinkprm SUBCOMMAND`: one table from subcommand to program, nothing else."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from thinkprm_jax import program

# Subcommand -> (module with a `main(arguments) -> exit status`, what it does). Loaded when asked for.
PROGRAMS = {
    "score": ("thinkprm_jax.infer.score", "verdicts on solutions: JSON Lines in, JSON Lines out"),
    "evaluate": ("thinkprm_jax.infer.evaluate", "how good a verifier is, on solutions whose errors are known"),
    "report": ("thinkprm_jax.infer.report", "a run as one HTML page: problems, scored steps, chains, plots"),
    "search": ("thinkprm_jax.infer.search", "best-of-N, beam search and DVTS, guided by a verifier"),
    "serve": ("thinkprm_jax.infer.serve", "a verifier over HTTP: verdicts, OpenAI's completions, reward shapes"),
    "miniature": ("thinkprm_jax.infer.miniature", "the paper's questions, asked of the bundled models"),
    "collect": ("thinkprm_jax.train.collect", "verification chains from a teacher, filtered by step labels"),
    "train": ("thinkprm_jax.train.sft", "fine-tune a model on verification chains"),
    "export": ("thinkprm_jax.train.export", "a training run's checkpoint as a Hugging Face folder"),
}


def usage() -> str:
    lines = ["usage: thinkprm SUBCOMMAND ...", "", "Process reward models that think, in JAX.", ""]
    lines += [f"  {name:<10} {what}" for name, (_, what) in PROGRAMS.items()]
    return "\n".join([*lines, "", "`thinkprm SUBCOMMAND --help` says more. Start here: thinkprm score"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of a command line; without one, that of this process, which then ends."""
    if arguments is None:
        program.end(_main(sys.argv[1:], ends_process=True))
    return _main(arguments)


def _main(arguments: Sequence[str], ends_process: bool = False) -> int:
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name in ("-V", "--version"):
        import thinkprm_jax

        print(f"thinkprm-jax {thinkprm_jax.__version__}")
        return 0
    if name not in PROGRAMS:
        nearest = difflib.get_close_matches(name, PROGRAMS, n=1, cutoff=0)[0]
        print(f"thinkprm: error: no subcommand {name!r}; did you mean {nearest!r}?", file=sys.stderr)
        return 2

    def load_and_run(rest: Sequence[str]) -> int:
        # Loading takes seconds: whoever interrupts it wants no traceback either.
        status: int = importlib.import_module(PROGRAMS[name][0]).main(rest)
        return status

    return program.run(load_and_run, rest, f"thinkprm {name}", ends_process)


if __name__ == "__main__":
    main()
