#!/usr/bin/env bash
# s3fs 2026.9.0 (fsspec 2026.9.0, so gcsfs and other stores, too): where the block of `with fs.open("s3://...", "wb")`
# raises, leaving it completes the upload. What was written so far becomes the object, in the place of the whole one that
# was there before, and nothing tells the two apart; `open` of a local file leaves the same half, but stores are used for
# their promise that an object is whole or absent. Checkpoints and shards that are streamed so are cut off by any
# exception: Ctrl-C, a full disk at the source, a row that cannot be written. Instead: write to a temporary file and
# `fs.put_file` it, or write inside `with fs.transaction:`, which discards on an exception.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    s3fs==2026.9.0 fsspec==2026.9.0 "moto[s3]==5.2.5" flask==3.1.3 flask-cors==6.0.2

cat > "$work/run.py" << 'PYTHON'
import logging

import s3fs
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
url = "http://{}:{}".format(*server.get_host_and_port())
fs = s3fs.S3FileSystem(key="a", secret="b", endpoint_url=url)
fs.mkdir("bucket")


def save(name, rows):
    with fs.open(f"s3://bucket/{name}", "wb", block_size=5 * 2**20) as file:
        for row in rows:
            file.write(row)


def stopped():
    yield b"1" * (6 * 2**20)  # a piece of an upload in pieces
    raise RuntimeError("stopped")


for name in ["plain", "transaction"]:
    save(name, [b"0" * (20 * 2**20)])
    try:
        if name == "plain":
            save(name, stopped())
        else:
            with fs.transaction:
                save(name, stopped())
    except RuntimeError:
        pass
    print(name, fs.cat(f"s3://bucket/{name}", recursive=False)[:1], fs.size(f"s3://bucket/{name}") // 2**20, "MiB")
server.stop()
PYTHON
AWS_DEFAULT_REGION=us-east-1 "$work/env/bin/python" "$work/run.py" | tee "$work/seen"

diff - "$work/seen" << 'SEEN'
plain b'1' 6 MiB
transaction b'0' 20 MiB
SEEN
