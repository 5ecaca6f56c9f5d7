"""Words in answers: what was counted (`16 students`), and phrases that say the same."""

from __future__ import annotations

# fmt: off
_ONE = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "oxen": "ox", "dice": "die", "vertices": "vertex", "matrices": "matrix",
    "indices": "index", "radii": "radius", "axes": "axis", "bases": "base", "halves": "half", "lives": "life",
}
# fmt: on
_SIBILANT = ("s", "x", "z", "sh", "ch", "o", "i")
# What people write for the same answer: a phrase, and what stands for all of its kind.
PHRASES = {
    **dict.fromkeys(
        ("all real numbers", "all reals", "any real number", "every real number", "the real numbers",
         "the set of real numbers", "the set of all real numbers", "set of all real numbers"), "reals"
    ),
    **dict.fromkeys(
        ("no solution", "no solutions", "there is no solution", "there are no solutions", "empty set",
         "the empty set", "no real solution", "no real solutions", "null set"), "nothing"
    ),
    **dict.fromkeys(("dne", "d.n.e", "does not exist", "it does not exist", "doesn't exist"), "does not exist"),
    **dict.fromkeys(("positive infinity", "plus infinity"), "infinity"),
    **dict.fromkeys(("negative infinity", "minus infinity"), "-infinity"),
}  # fmt: skip


def counted(label: str) -> str:
    """A spelling that one and many of a thing share: `person` of `people` and `persons`, `box` of `boxes`."""
    return " ".join(map(_stem, label.split()))


def _stem(word: str) -> str:
    word = _ONE.get(word, {"sq": "square", "cu": "cubic"}.get(word, word))
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if word.endswith(("ve", "fe")):
        return f"{word[:-2]}f"
    if word.endswith("y"):
        return f"{word[:-1]}i"
    return word[:-1] if word.endswith("e") and word[:-1].endswith(_SIBILANT) else word
