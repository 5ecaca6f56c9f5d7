"""What no request may exceed, and how long anything may take. All of it is on by default."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.errors import UserError


def _limit(default: float, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """Limits of a server; every field is an option of `thinkprm serve`.

    Raises:
      UserError: one of them is no positive number.
    """

    max_body_bytes: int = _limit(2**20, "bytes of a request; more is 413")
    max_problem_chars: int = _limit(20_000, "characters of a problem")
    max_solution_chars: int = _limit(100_000, "characters of all steps of a solution, and of a text to go on from")
    max_steps: int = _limit(256, "steps of a solution")
    max_solutions: int = _limit(256, "solutions, or prompts, of a request")
    max_queue: int = _limit(512, "chains that wait for a slot; what would make more is 429")
    max_streams: int = _limit(256, "answers that are streamed at once; more is 429")
    deadline: float = _limit(600.0, "seconds a request may take; then it is given up and the answer is 504")
    body_seconds: float = _limit(30.0, "seconds in which a body must be there")
    drain_seconds: float = _limit(
        30.0, "seconds that running requests have to finish, once the server is told to end"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise UserError(f"--{field.name.replace('_', '-')} is {value}, it must be above 0")
