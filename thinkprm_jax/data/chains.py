from __future__ import annotations
from dataclasses import dataclass
@dataclass(frozen=True)
class Chain:
    problem: str
    steps: list[str]
    chain: str
    labels: list[int]
    correct: bool
