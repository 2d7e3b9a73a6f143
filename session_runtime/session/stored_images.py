"""The images of a conversation in its database: each once, beside the messages, for as long as a message has it.

A message's row names its images by their digests. So the row of a message stays small, an image that was read twice is stored
once, and the pages of an image that has left the conversation are used for the next one.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from agent.images import Image
from agent.messages import Message

TABLE: Final = "CREATE TABLE images (digest TEXT PRIMARY KEY, data BLOB NOT NULL);"


def row_of(message: Message) -> str:
    """A message as JSON, without its images' data."""
    return json.dumps(message.outline(), separators=(",", ":"))


def message_of(row: str, images: Mapping[str, str]) -> Message:
    """The inverse of `row_of`; `images` are their data by digest. Raises what a damaged row raises: ValueError, KeyError,
    TypeError."""
    body = json.loads(row)
    found = [
        {"media_type": facts["media_type"], "width": facts["width"], "height": facts["height"], "data": images[facts["sha256"]]}
        for facts in body.get("images", ())
    ]
    return Message.from_dict({**body, "images": found})


def load(database: sqlite3.Connection) -> dict[str, str]:
    """The data of all images, as base64, by digest."""
    rows = database.execute("SELECT digest, data FROM images")
    return {digest: base64.b64encode(data).decode() for digest, data in rows}


def write(database: sqlite3.Connection, before: Iterable[Message], after: Iterable[Message]) -> None:
    """Bring the table from the images of some messages to those of others."""
    stored, wanted = _by_digest(before), _by_digest(after)
    database.executemany("DELETE FROM images WHERE digest = ?", [(digest,) for digest in stored.keys() - wanted.keys()])
    database.executemany(
        "INSERT INTO images VALUES (?, ?)",
        [(digest, base64.b64decode(wanted[digest].data)) for digest in wanted.keys() - stored.keys()],
    )


def _by_digest(messages: Iterable[Message]) -> dict[str, Image]:
    return {image.digest: image for message in messages for image in message.images}
