"""What the pieces of a vocabulary stand for: bytes, blanks, ordinary text or marks."""

from __future__ import annotations

import re

import tokenizers

from thinkprm_jax.errors import UserError

NO_TOKEN = "\uffff"  # a text of no vocabulary: no character of Unicode
SPACE = "▁"  # a blank, in sentencepiece's pieces
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def is_plain(token: tokenizers.AddedToken) -> bool:
    """Whether an added token is no mark but a piece of ordinary text: it is not special, and one character or
    blanks. Vocabularies gain in this way letters that they had forgotten, and runs of newlines."""
    return not token.special and (len(token.content) == 1 or token.content.isspace())


def is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """True for byte-level BPE, False for sentencepiece pieces; `UserError` for anything else, which cannot be
    detokenised token by token."""
    decoder = backend.decoder
    state = decoder.__getstate__().decode() if decoder is not None else ""
    if '"ByteLevel"' in state:
        return True
    if SPACE in state:
        return False
    raise UserError("only byte-level and sentencepiece tokenizers are supported")


def may_collapse(backend: tokenizers.Tokenizer) -> bool:
    """Whether its normaliser may take away any number of characters, such as blanks."""
    normalizer = backend.normalizer
    state = normalizer.__getstate__().decode() if normalizer is not None else ""
    return any(f'"{part}"' in state for part in ("Strip", "Regex", "BertNormalizer", "StripAccents", "Nmt"))


def piece_bytes(piece: str) -> bytes:
    """UTF-8 bytes that a piece of sentencepiece adds to a running text."""
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode("utf-8")


def _byte_alphabet() -> dict[str, int]:
    """The 256 characters by which byte-level BPE writes bytes: printable Latin-1 as itself, the
    rest from U+0100 up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def byte_level_bytes(piece: str) -> bytes:
    """The bytes of a piece of a byte-level vocabulary."""
    if all(character in _BYTES for character in piece):
        return bytes(_BYTES[character] for character in piece)
    return piece.encode("utf-8")
