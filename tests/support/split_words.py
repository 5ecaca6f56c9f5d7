"""A tokenizer that writes the words of a verdict in several tokens, as those of many base models do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from thinkprm_jax.tokenizer.tokenizer import Tokenizer

WORDS = ("correct", "incorrect", "ĠYes", "ĠNo", "yes", "no", "Yes")


def split_tokenizer(source: Path, folder: Path) -> Tokenizer:
    """The byte-level tokenizer of the folder ``source`` without the last merge of each of WORDS.

    It is written to ``folder``, with all other files of ``source``. The ids are the same.
    """
    shutil.copytree(source, folder, dirs_exist_ok=True)
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    merges = state["model"]["merges"]
    state["model"]["merges"] = [merge for merge in merges if "".join(merge).replace(" ", "") not in WORDS]
    path.write_text(json.dumps(state), encoding="utf-8")
    return Tokenizer.load(folder)
