"""What the agent and the workspace server say to each other. Python 3.9, standard library only.

One request for each connection to a Unix socket, a JSON object on one line. A connection whose sending side is closed takes the
request back: its command is killed with all it started, and the answer has the output so far. The server speaks first,
`{"ready": true}`: a request that is sent after that has been taken by a server that lives. The answer is any number of pieces
of output and one last line. A line with the key `text` is followed by as many bytes of UTF-8, which belong to it, one with the
key `data` by bytes of any kind: what is long is no part of the JSON, because parsing it would block the agent's event loop.

    {"op": "run", "command": "make", "timeout": 120, "stream": true}
        {"output": null, "text": 9}                          and 9 bytes; only when `stream` is true, as it comes
        {"result": {"exit_code": 0, "timed_out": false, "truncated": false, "directory": null}, "text": 9}    and 9 bytes
    {"op": "read", "path": "a.txt", "offset": 1, "limit": null}              {"result": null, "text": 5}, and 5 bytes
    {"op": "read_image", "path": "a.png"}                                    {"result": null, "data": 5}, and 5 bytes
    {"op": "write", "path": "a.txt", "content": "text"}                      {"result": null}
    {"op": "edit", "path": "a.txt", "old": "x", "new": "y", "replace_all": false}
        {"result": {"count": 1, "had_changed": false}}
    {"op": "list", "path": ".", "glob": "*", "depth": 1}
        {"result": {"entries": [{"path": "a.txt", "kind": "file", "size": 4}], "truncated": false}}
    {"op": "shutdown"}                                       {"result": null}, and the server exits with status 0

What cannot be done is answered with {"error": "why"}, and with `"image": true` beside it when an image was to be read as text.
A shutdown is an error until the agent has marked the session's end (`--end`): anything that runs in the workspace can connect
to the socket.
"""

from __future__ import annotations

GREETING = b'{"ready": true}\n'
"""What the server says to each connection first. A connection that is made while a server dies gets none."""

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of a request."""

ANSWER_LIMIT = 512 * 1024
"""Bytes of one line of an answer, without its text."""

TEXT_LIMIT = 5 * 1024 * 1024
"""Bytes of the text or the data behind one line of an answer."""
