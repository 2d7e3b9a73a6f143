"""The workspace server as one file that any Python from 3.9 on runs: `python3 -I FILE`.

    python -m session_runtime.workspace.bundle FILE

This is how the server gets into an image other than the runtime's: an init container with the runtime's image writes the
file to a volume, and the workspace container runs it.

The file holds this folder, except what only the agent container runs, and `agent/workspace`. The latter does the work: it
runs the commands and edits the files. It stays in the agent's package because `python -m agent` uses it without a container,
and the agent must not import the runtime.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent

_PARENT: Final = _FOLDER.parents[1]

_AGENT_SIDE: Final = {"bundle.py", "client.py"}
"""Modules of this folder that run beside the agent, on the runtime's own Python."""

MODULES: Final = tuple(
    str(path.relative_to(_PARENT))
    for folder in (_PARENT / "agent" / "workspace", _FOLDER)
    for path in sorted(folder.glob("*.py"))
    if path.name != "__init__.py" and not (folder == _FOLDER and path.name in _AGENT_SIDE)
)
"""All that the server consists of, besides the standard library."""

PACKAGES: Final = (
    "agent/__init__.py",
    "agent/workspace/__init__.py",
    "session_runtime/__init__.py",
    "session_runtime/workspace/__init__.py",
)

_MAIN: Final = """\
import sys

if sys.version_info < (3, 9):
    sys.exit("This image has Python %d.%d. The workspace server needs Python 3.9 or later as python3." % sys.version_info[:2])

import runpy

runpy.run_module("session_runtime.workspace.server", run_name="__main__", alter_sys=True)
"""
"""What runs first. An older Python can run it too, so that it can name the version that is missing."""


def write_bundle(path: Path) -> None:
    """Write the file, whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    with zipfile.ZipFile(unfinished, "w") as bundle:
        bundle.writestr("__main__.py", _MAIN)
        for name in (*PACKAGES, *MODULES):
            bundle.write(_PARENT / name, name)
    unfinished.rename(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m session_runtime.workspace.bundle", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write, for example /bundle/workspace.pyz")
    write_bundle(parser.parse_args(arguments).file)


if __name__ == "__main__":
    main()
