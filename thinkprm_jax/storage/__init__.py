"""Where files are: paths of this machine and objects in stores (`gs://`, `s3://`, `hf://`, `memory://`).

Every program reads and writes through here::

    place = location("gs://bucket/run/rows.jsonl")   # or a path of this machine, which becomes a `Path`
    with open_read(place) as file:                   # a stream of bytes, which can seek; nothing is copied
        ...
    write_whole(place, text)                         # the file is there whole, or what was there before
    with open_whole(place) as file:                  # the same of something too large for memory
        ...
    (place.parent / "other.jsonl").exists()          # an `ObjectPath` has the methods of `Path` that we use
    folder = local_copy(location("gs://bucket/model"))   # in the user's cache, for what needs files here
    with PartLog(place) as log:                      # lines that are added as they come, in numbered parts
        log.append(line)

An object store has no rename, no append and no locks. So a file there is written in one upload, which shows
nothing before it is complete, and what grows is a row of numbered parts, each of them whole or absent: see
:mod:`thinkprm_jax.storage.parts`.
"""

from __future__ import annotations

from thinkprm_jax.storage.copies import local_copy, upload_folder
from thinkprm_jax.storage.location import Location, ObjectPath, is_local, location, same_file
from thinkprm_jax.storage.parts import PartLog
from thinkprm_jax.storage.reading import open_read
from thinkprm_jax.storage.writing import open_whole, write_whole

__all__ = [
    "Location",
    "ObjectPath",
    "PartLog",
    "is_local",
    "local_copy",
    "location",
    "open_read",
    "open_whole",
    "same_file",
    "upload_folder",
    "write_whole",
]
