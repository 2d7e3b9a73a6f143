"""What the agent and the workspace server say to each other. Python 3.9, standard library only.

One request for each connection to a Unix socket, a JSON object on one line. A closed connection takes the
request back: its command is killed with all it started. The server speaks first, `{"ready": true}`: a request that is sent
after that has been taken by a server that lives. The answer is any number of output lines and one last line.

    {"op": "run", "command": "make", "timeout": 120, "stream": true}
        {"output": "cc -o ..."}                              only when `stream` is true, as it comes
        {"result": {"exit_code": 0, "output": "cc ...", "timed_out": false, "truncated": false}}
    {"op": "read", "path": "a.txt", "offset": 1, "limit": null}              {"result": "text"}
    {"op": "write", "path": "a.txt", "content": "text"}                      {"result": null}
    {"op": "edit", "path": "a.txt", "old": "x", "new": "y", "replace_all": false}    {"result": 1}
    {"op": "list", "path": ".", "glob": "*", "depth": 1}
        {"result": {"entries": [{"path": "a.txt", "kind": "file", "size": 4}], "truncated": false}}
    {"op": "shutdown"}                                       {"result": null}, and the server ends with status 0

What cannot be done is answered with {"error": "why"}.
"""

from __future__ import annotations

from pathlib import Path

GREETING = b'{"ready": true}\n'
"""What the server says to each connection first. A connection that is made while a server dies gets none."""

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one line of the protocol."""

FINISHED_SUFFIX = ".finished"


def finished_marker(socket: Path) -> Path:
    """The file that says, beside the socket, that the session is finished: a server that starts then ends at once.

    Without it the pod of a session that ends before this container is up would wait for it indefinitely.
    """
    return socket.with_name(socket.name + FINISHED_SUFFIX)
