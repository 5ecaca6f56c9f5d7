"""The two kinds of failure that are somebody's business outside the library, and the one place that makes a
`UserError` of whatever goes wrong while a user's file is read.

Both are `ValueError`s, so that a caller who knows nothing of this library catches them as such. Inside the
library `except ValueError` stands only around code that raises neither, or after `except UserError: raise`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A usage or input mistake. The message is one line for a person; programs print it and exit
    with status 2.

    Example:

        try:
            load_model("no/such/folder")
        except UserError as error:
            print(error)
    """


class RequestError(ValueError):
    """One request or item failed, and the message says why in one line; the others go on.

    Example:

        prm = ThinkPRM("mini")
        [(index, verdict)] = prm.verify([("2 + 2?", [])])
        try:
            print(verdict.prefix_score)
        except RequestError as error:
            print(error)  # there are no steps to judge
    """


class TooLong(RequestError):
    """A prompt that leaves no room in the context.

    Attributes:
      needed: the ``max_length`` that would do for it. limit: the model's positions.
    """

    def __init__(self, message: str, needed: int, limit: int) -> None:
        super().__init__(message)
        self.needed, self.limit = needed, limit

    def __reduce__(self) -> tuple[type[TooLong], tuple[str, int, int]]:
        return type(self), (str(self), self.needed, self.limit)


class TooLongCount:
    """What is said once of many prompts that are too long."""

    def __init__(self) -> None:
        self._errors: list[TooLong] = []

    def add(self, error: BaseException | None) -> bool:
        """Whether the error is of this kind, and counted."""
        if isinstance(error, TooLong):
            self._errors.append(error)
        return isinstance(error, TooLong)

    def lines(self, option: str) -> list[str]:
        """[] where there were none. option: what the user calls ``max_length``."""
        if not self._errors:
            return []
        count, limit = len(self._errors), min(error.limit for error in self._errors)
        are = "1 prompt is" if count == 1 else f"{count:,} prompts are"
        fitting = [error.needed for error in self._errors if error.needed <= limit]
        beyond = count - len(fitting)
        said = [f"{option} {max(fitting)} would do"] if fitting else []
        said += [f"{beyond:,} cannot fit, since the model has {limit:,} positions"] if beyond else []
        return [f"{are} too long: {'; '.join(said)}"]


@contextlib.contextmanager
def reading(place: object) -> Iterator[None]:
    """Around whatever reads and checks what a user wrote: each failure inside becomes a `UserError` that names
    ``place``, in one line. Fields that are not what they should be are found by the code that uses them, in more
    ways than anybody lists; checks of our own come first and say it better.

    Example:

        with reading("model/tokenizer_config.json"):
            names = json.loads(text)["names"]  # UserError: model/tokenizer_config.json: 'names' is missing

    Args:
      place: the file, and the line or field where it is known.
    Raises:
      UserError: for every exception but `UserError` and `RequestError`, which pass, and what stops a program.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (UserError, RequestError)) or not is_failure(error):
            raise
        raise UserError(f"{place}: {reason(error)}") from error


def is_failure(error: BaseException) -> bool:
    """Whether something went wrong, rather than somebody stopping the program. A panic of a library written in
    Rust is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def reason(error: BaseException, other: str = "cannot be read ({})") -> str:
    """What went wrong, in one line; ``other``: in what words, where it is nothing special."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start + 1})"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    lines = str(error).split("\n")
    text = " ".join((lines[0].strip() or "".join(lines[1:2])).split())[:_LONGEST_REASON]
    if isinstance(error, KeyError):
        return f"{text or 'a field'} is missing"
    return other.format(text or type(error).__name__)


def one_line(error: BaseException) -> str:
    """The message as programs print it: some quote what they were given, however long that is."""
    text = " ".join(str(error).splitlines())
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."


_LONGEST_REASON = 300  # characters
_LONGEST_LINE = 4000
