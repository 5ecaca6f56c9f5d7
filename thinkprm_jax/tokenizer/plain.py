"""A tokenizer.json without its control tokens, for untrusted text."""

from __future__ import annotations

import json
from typing import Any, Literal

import tokenizers
from tokenizers import AddedToken

from thinkprm_jax.tokenizer.pieces import NO_TOKEN, is_plain

_MOST_FILLERS = 2**16
# Of the text; of a run behind a control token; of nothing: behind a token that is found in text which the
# normaliser has been through already, marks included.
Start = Literal["text", "run", "nothing"]


def plain_copy(backend: tokenizers.Tokenizer, start: Start) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
    """The tokenizer without control tokens and without a post-processor.

    Args:
      backend: the whole tokenizer.
      start: what its texts are the start of; some tokenizers mark that.
    Returns: the copy, and for the added tokens that it keeps (a letter, blanks) their ids there -> their ids in
    ``backend``.
    """
    model = backend.model
    added = backend.get_added_tokens_decoder().values()
    if start != "text" or any(model.token_to_id(token.content) is not None for token in added):
        state = _plain_state(backend)
        if start != "text":
            _unmark(state, start)
        return _with_kept(tokenizers.Tokenizer.from_str(json.dumps(state)), backend)
    plain = tokenizers.Tokenizer(model)  # shares the vocabulary: no second copy of 150,000 merges
    if backend.normalizer is not None:
        plain.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        plain.pre_tokenizer = backend.pre_tokenizer
    return _with_kept(plain, backend)


def _plain_state(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """The JSON of the tokenizer without added tokens; its vocabulary loses the control strings it holds."""
    state: dict[str, Any] = json.loads(backend.to_str())
    state["added_tokens"] = []
    state["post_processor"] = None
    model = state["model"]
    added = backend.get_added_tokens_decoder().values()
    drop = {token.content for token in added if not is_plain(token)} - {model.get("unk_token")}
    if model["type"] == "BPE":
        model["vocab"] = {piece: id for piece, id in model["vocab"].items() if piece not in drop}
        model["merges"] = [merge for merge in model["merges"] if not drop.intersection([*merge, "".join(merge)])]
    elif model["type"] == "Unigram":  # ids are places: a text that nobody writes stands there instead
        model["vocab"] = [
            [f"{NO_TOKEN}{id}" if piece in drop and id != model["unk_id"] else piece, score]
            for id, (piece, score) in enumerate(model["vocab"])
        ]
    return state


def _unmark(state: dict[str, Any], start: Start) -> None:
    pre_tokenizer = state.get("pre_tokenizer") or {}
    for part in [pre_tokenizer, *pre_tokenizer.get("pretokenizers", [])]:
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
    normalizer = state.get("normalizer") or {}
    if start == "nothing" and normalizer.get("type") == "Prepend":
        state["normalizer"] = None
    elif start == "nothing" and "normalizers" in normalizer:
        kept = [part for part in normalizer["normalizers"] if part.get("type") != "Prepend"]
        state["normalizer"] = {**normalizer, "normalizers": kept}


def _with_kept(
    plain: tokenizers.Tokenizer, backend: tokenizers.Tokenizer
) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
    kept = {id: token for id, token in backend.get_added_tokens_decoder().items() if is_plain(token)}
    size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1 if kept else 0
    gap = size - plain.get_vocab_size()
    if not kept or gap > _MOST_FILLERS:
        return plain, {}
    # A new token gets the number of those before it as its id, which is another's where ids have gaps.
    plain.add_tokens([AddedToken(f"{NO_TOKEN}{n}{NO_TOKEN}", normalized=False) for n in range(gap)])
    plain.add_tokens(list(kept.values()))
    own = {plain.token_to_id(token.content): id for id, token in kept.items()}
    return plain, {new: id for new, id in own.items() if new is not None and new != id}
