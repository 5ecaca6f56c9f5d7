"""The two kinds of failure that are somebody's business outside the library.

Both are `ValueError`s, so that a caller who knows nothing of this library catches them as such. Inside the
library `except ValueError` stands only around code that raises neither, or after `except UserError: raise`."""

from __future__ import annotations


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
