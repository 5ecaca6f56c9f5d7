"""Chains for tests, written short, and their labels.

`{+}` is a box that says correct, `{-}` one that says incorrect, and `<+-+>` a chain with a label for each of three
steps, judged so. Labels are written `10?`: correct, incorrect (and all behind it), not judged.
"""

from __future__ import annotations

import re

from thinkprm_jax.protocol.reading import read_chain

BOXES = {"+": "\\boxed{correct}", "-": "\\boxed{incorrect}"}


def judged(signs: str) -> str:
    return "\n\n".join(f"Step {i}: text.\n\nThe step is {BOXES[sign]}" for i, sign in enumerate(signs, start=1))


def chain_of(text: str) -> str:
    text = re.sub(r"<([+-]+)>", lambda match: judged(match[1]), text)
    return text.replace("{+}", BOXES["+"]).replace("{-}", BOXES["-"])


def labels_of(chain: str, num_steps: int) -> str:
    return "".join("?" if label is None else str(label) for label in read_chain(chain, num_steps).labels)
