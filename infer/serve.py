"""`thinkprm serve`: a verifier over HTTP."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinkprm_jax import program
from thinkprm_jax.errors import UserError

if TYPE_CHECKING:
    from thinkprm_jax.serving.service import Service

ABOUT = """\
Serves a verifier over HTTP: POST /v1/verify judges solutions; /v1/completions and /v1/chat/completions write text
as OpenAI's clients ask for it; /pooling, /score, /v1/score and /generate speak as vLLM and SGLang do. There is a
page to try it at /, the description at /openapi.json, and what Prometheus reads at /metrics."""
MORE = """\
It listens at once; /ready says yes when all shapes that will come are compiled. SIGTERM or Ctrl-C ends it: what
runs is finished, what comes is refused, and after --drain-seconds the rest is broken off.
Exit status: 0 ended when it was told to; 1 requests had to be broken off then; 2 bad usage."""

MOST_KEYS = 2**20  # bytes of a file of keys


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    keys = read_keys(options.api_key_file)
    if keys == () and options.host not in ("127.0.0.1", "::1", "localhost"):
        print(
            "thinkprm serve: there is no --api-key-file: whoever reaches this address may use it", file=sys.stderr
        )
    try:
        from thinkprm_jax.serving.server import ServerProcess
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'thinkprm-jax[serve]'") from None

    # The model
    service = load_service(options)

    # The address
    server = ServerProcess(service, options.host, options.port, keys, options.warm_length, options.access_log)
    print(f"thinkprm serve: {service.names[0]} at http://{server.address}", file=sys.stderr, flush=True)
    if not server.run():
        program.leave(1)
    return 0


def load_service(options: argparse.Namespace) -> Service:
    """The verifier that the options describe, loaded."""
    from thinkprm_jax.infer.verifier_options import choose_verifier, place_chosen
    from thinkprm_jax.serving.limits import ServerLimits
    from thinkprm_jax.serving.service import Service, base_settings
    from thinkprm_jax.verifier.loading import with_fingerprints
    from thinkprm_jax.verifier.registry import load_verifier

    limits = ServerLimits(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(ServerLimits)}
    )
    settings, mesh = place_chosen(options, with_fingerprints(choose_verifier(options)))
    verifier = load_verifier(settings, mesh=mesh)
    given = options.model or settings.model or settings.kind
    names = dict.fromkeys([options.served_name or given, given, settings.model or given, Path(given).name])
    return Service(verifier, base_settings(settings, options.temperature), names=tuple(names), limits=limits)


def read_keys(path: Path | None) -> tuple[str, ...]:
    """One key a line; what begins with # is none. (): no file."""
    if path is None:
        return ()
    from thinkprm_jax.user_files import read_text

    lines = [line.strip() for line in read_text(path, MOST_KEYS).splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UserError(f"{path}: no key in it")
    return keys


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    from thinkprm_jax.infer.verifier_options import add_verifier_options
    from thinkprm_jax.serving.limits import ServerLimits

    parser = argparse.ArgumentParser(
        prog="thinkprm serve", description=ABOUT, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: 8000)")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="keys, one a line; a request must bear one of them"
    )
    parser.add_argument("--served-name", metavar="NAME", help="what the model is called (default: as --model)")
    parser.add_argument(
        "--warm-length",
        type=int,
        metavar="TOKENS",
        default=1024,
        help="prompts up to this length have nothing to compile once it is ready (default: 1024); 0: nothing is "
        "compiled before",
    )
    parser.add_argument("--access-log", action="store_true", help="a line for every request on stderr")
    limits = parser.add_argument_group("limits").add_argument
    for field in dataclasses.fields(ServerLimits):
        name = f"--{field.name.replace('_', '-')}"
        what = f"{field.metadata['help']} (default: {field.default:g})"
        limits(name, type=type(field.default), default=field.default, metavar="N", help=what)
    add_verifier_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    program.start(main, "thinkprm serve")
