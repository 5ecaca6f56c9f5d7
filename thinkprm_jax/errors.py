"""The two kinds of failure that are somebody's business outside the library.

Both are `ValueError`s, so that a caller who knows nothing of this library catches them as such. Inside the
library `except ValueError` stands only around code that raises neither, or after `except UserError: raise`."""


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
