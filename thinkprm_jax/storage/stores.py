"""Object stores through fsspec: the few requests that we make, with tries that are bounded and can be seen, and
one line for each way in which they fail."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import re
import secrets
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import UserError, reason

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Scheme -> (package that speaks it, extra that brings it); hf and memory come with what is always installed.
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3"), "hf": ("huggingface_hub", ""), "memory": ("fsspec", "")}
ALIASES = {"gcs": "gs", "s3a": "s3"}
TRIES = 6  # of one request; the pauses between them double, and are some 30 seconds together
SILENCE_SECONDS = 60  # in which nothing comes, after which a request is made again
PIECE = 32 * 2**20  # bytes of a large file that go up at once; S3 takes 10,000 pieces
_SIGN_IN = {
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "hf": "run `hf auth login`, or set HF_TOKEN",
}


@dataclass(frozen=True)
class ObjectFacts:
    """What stands at an address. version: changes when the object is written again; "" where stores say none."""

    size: int
    is_folder: bool
    version: str


def check_scheme(scheme: str, url: str) -> None:
    """`UserError` where we do not speak it, or what does is not installed. Asks nothing of the store."""
    if scheme not in _PACKAGES:
        known = ", ".join(f"{name}://" for name in _PACKAGES)
        raise UserError(f"{url}: files are read and written at {known} and paths of this machine, not {scheme}://")
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{url}: {scheme}:// needs the package {package}: pip install 'thinkprm-jax[{extra}]'")


def filesystem(scheme: str) -> AbstractFileSystem:
    """fsspec's, one a process (fsspec keeps them, and makes new ones after a fork)."""
    import fsspec

    importlib.import_module(_PACKAGES[scheme][0])
    _hear_retries(scheme)
    options: dict[str, Any] = {"use_listings_cache": False}  # other processes write, too
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options |= {"endpoint_url": endpoint} if endpoint else {}
        options["config_kwargs"] = {
            "retries": {"mode": "standard", "total_max_attempts": TRIES},
            "connect_timeout": SILENCE_SECONDS,
            "read_timeout": SILENCE_SECONDS,
        }
    elif scheme == "memory":
        options = {}
    elif scheme == "gs":
        # The class of the JSON API. Its newer subclass asks every bucket over gRPC which kind it is, and warns
        # where it may not; only zonal buckets need that.
        from aiohttp import ClientTimeout
        from gcsfs.core import GCSFileSystem

        # Without one gcsfs waits for ever.
        options["requests_timeout"] = ClientTimeout(sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="GCS project not set")
            return GCSFileSystem(**options)
    return fsspec.filesystem(scheme, **options)


def describe(url: str) -> ObjectFacts | None:
    """What stands there; None: nothing."""
    with asking(url):
        fs, key = _of(url)
        try:
            found = fs.info(key)
        except FileNotFoundError:
            return None
    return _facts(found)


def facts_below(url: str) -> dict[str, ObjectFacts]:
    """Of all files below a folder, by their names from there on."""
    with asking(url):
        fs, key = _of(url)
        try:
            found = fs.find(key, detail=True)
        except FileNotFoundError:
            return {}
    below = f"{key.strip('/')}/"
    named = {str(name).strip("/"): facts for name, facts in found.items()}
    return {name.removeprefix(below): _facts(facts) for name, facts in named.items() if name.startswith(below)}


def _facts(info: Mapping[str, Any]) -> ObjectFacts:
    names = ("generation", "etag", "ETag", "blob_id", "created")
    version = next((str(info[name]) for name in names if info.get(name)), "")
    return ObjectFacts(int(info.get("size") or 0), info.get("type") == "directory", version)


def names_below(url: str, deep: bool) -> list[str]:
    """Addresses in order; deep: files alone, however far below."""
    scheme = url.partition(":")[0]
    with asking(url):
        fs, key = _of(url)
        try:
            found = fs.find(key) if deep else fs.ls(key, detail=False)
        except FileNotFoundError:
            return []
    names = [str(name).strip("/") for name in found]
    below = f"{key.strip('/')}/".lstrip("/")  # a file lists itself, and some stores mark a folder with an object
    return sorted(f"{scheme}://{name}" for name in names if name.startswith(below) and name != below)


def read_range(url: str, start: int | None, end: int | None) -> bytes:
    """Bytes [start, end) of an object."""
    with asking(url):
        fs, key = _of(url)
        content: bytes = fs.cat_file(key, start=start, end=end)
        return content


def put_bytes(url: str, content: bytes, new: bool = False) -> None:
    """One object, whole; what was there before stays until the upload is complete.

    Args:
      new: FileExistsError where there is another one already, which the store decides: of several writers one
        succeeds. Their contents should differ: an object with this very content counts as ours.
    """
    with asking(url, "written", passes=(FileExistsError,)):
        fs, key = _of(url)
        if not new or url.startswith("hf:"):
            fs.pipe_file(key, content)
            return
        try:
            fs.pipe_file(key, content, mode="create")
        except FileExistsError:
            # The answer to our own write may have been lost; the library then tries again, and finds its object.
            if fs.cat_file(key) != content:
                raise


def put_file(url: str, path: str) -> None:
    """A file of this machine as one object, whole; in pieces where it is large."""
    with asking(url, "written"):
        fs, key = _of(url)
        options = {} if url.startswith(("hf:", "memory:")) else {"chunksize": PIECE}
        fs.put_file(path, key, **options)


def probe(folder: str) -> None:
    """Writes an object into a folder and deletes it; `UserError` where either is not allowed."""
    url = f"{folder}/.thinkprm-{secrets.token_hex(4)}"
    try:
        put_bytes(url, b"")
        delete(url, missing_ok=True)
    except UserError as error:
        raise UserError(str(error).replace(url, folder)) from error


def delete(url: str, missing_ok: bool) -> None:
    with asking(url, "deleted"):
        fs, key = _of(url)
        try:
            fs.rm_file(key)
        except FileNotFoundError:
            if not missing_ok:
                raise


def _of(url: str) -> tuple[AbstractFileSystem, str]:
    scheme, _, key = url.partition("://")
    return filesystem(scheme), f"/{key}" if scheme == "memory" else key


@contextlib.contextmanager
def asking(url: str, doing: str = "read", passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Around a request: whatever goes wrong becomes one line that begins with the address."""
    _busy.append(url)
    try:
        yield
    except Exception as error:
        if isinstance(error, (UserError, *passes)):
            raise
        raise UserError(f"{url}: {_why(url, doing, error)}") from error
    finally:
        with contextlib.suppress(ValueError):
            _busy.remove(url)


def _why(url: str, doing: str, error: Exception) -> str:
    """What a store or its library says, in one line; each has exceptions of its own."""
    scheme, _, key = url.partition("://")
    bucket = key.partition("/")[0]
    kind, text = type(error).__name__, " ".join(str(error).split())
    said = text[:300] or kind
    status = _status(error)
    if kind in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError") or status == "401":
        return f"no credentials that the store takes: {_SIGN_IN.get(scheme, said)}"
    if kind in ("ProfileNotFound", "ConfigNotFound", "RefreshError", "TokenRetrievalError"):
        return f"the credentials cannot be used ({said}): {_SIGN_IN.get(scheme, '')}"
    if isinstance(error, PermissionError) or text.startswith("Forbidden") or status == "403":
        return f"permission denied, or no such bucket is yours: {said}"
    if "bucket does not exist" in text or "NoSuchBucket" in text:
        return f"there is no bucket {bucket}"
    if isinstance(error, FileNotFoundError) and doing == "written":
        return f"cannot be written: there is no bucket {bucket}"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if kind in _UNREACHABLE or isinstance(error, ConnectionError | TimeoutError):
        return f"cannot be {doing}: the store cannot be reached, in {TRIES} tries ({said})"
    if re.fullmatch(r"5\d\d|429", status) or "SlowDown" in text:
        return f"cannot be {doing}: the store is not able to answer, in {TRIES} tries ({said})"
    return f"cannot be {doing}: {reason(error, '{}')}"


def _status(error: Exception) -> str:
    """Of HTTP, where an exception or its cause says one: gcsfs, requests and botocore each have their way."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        found = getattr(each, "code", None) or getattr(response, "status_code", None)
        if found is not None:
            return str(found)
    return ""


_UNREACHABLE = (
    "ClientConnectorError",
    "ClientConnectionError",
    "ClientOSError",
    "ClientPayloadError",
    "ServerDisconnectedError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "ConnectionClosedError",
    "HTTPClientError",
    "IncompleteRead",
    "ProxyError",
    "ReadTimeoutError",
    "FSTimeoutError",
)

_busy: list[str] = []  # addresses that are asked just now, by any thread
_lock = threading.Lock()
# Where the libraries say that they try again; they say it to nobody unless somebody sets a level.
_LOGGERS = {
    "gs": ("gcsfs",),
    "s3": ("s3fs", "botocore.retries.standard", "aiobotocore.retries.standard"),
}
_AGAIN = re.compile(r"retrying after exception|Retryable error|Retry needed, retrying request")
_OUT = re.compile(r"out of retries|non-retriable exception")


@functools.cache
def _hear_retries(scheme: str) -> None:
    for name in _LOGGERS.get(scheme, ()):
        logger = logging.getLogger(name)
        level = logger.getEffectiveLevel()
        for other, below in list(logging.root.manager.loggerDict.items()):
            if other.startswith(f"{name}.") and isinstance(below, logging.Logger) and not below.level:
                below.setLevel(level)  # they would take the new one
        logger.addFilter(_RetryLines(level))
        logger.setLevel(logging.DEBUG)


class _RetryLines(logging.Filter):
    """Lines on stderr for tries that follow on a failure; everything else as the logger had it."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        if _AGAIN.search(str(record.msg)):
            what = _busy[-1] if _busy else "object store"
            why = " ".join(record.getMessage().split())[:200]
            with _lock, contextlib.suppress(OSError, ValueError):
                print(f"{what}: {why}; trying again", file=sys.stderr, flush=True)
            return False
        if _OUT.search(str(record.msg)):
            return False  # with a traceback; the failure itself is raised, and said once
        return record.levelno >= self._level
