"""The two kinds of failure that are somebody's business outside the library."""


class UserError(Exception):
    """A usage or input mistake. The message is one line for a person; programs print it and exit
    with status 2."""


class RequestError(Exception):
    """One request or item failed, and the message says why in one line; the others go on."""
