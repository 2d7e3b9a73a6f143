"""The workspace server as one file that any Python from 3.9 on runs: `python3 -I FILE`.

    python -m session_runtime.workspace.bundle --home /workspace FILE

This is how the server gets into an image other than the runtime's: an init container with the runtime's image writes the
file to a volume, and the workspace container runs it. Beside it are a `passwd` and a `group` that have this process's user, for
images that do not know it.

The file holds this folder, except what only the agent container runs, and `agent/workspace`. The latter does the work: it
runs the commands and edits the files. It stays in the agent's package because `python -m agent` uses it without a container,
and the agent must not import the runtime.
"""

from __future__ import annotations

import argparse
import os
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

ACCOUNT: Final = "agentsession"
"""Name of the user in `passwd`, as in the runtime's image."""

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


def write_accounts(folder: Path, home: str) -> None:
    """A `passwd` and a `group` (passwd(5), group(5)) with this process's user: `whoami`, `ssh` and `getpass` fail without."""
    user, group = os.getuid(), os.getgid()
    known = (("root", 0, 0, "/root"), (ACCOUNT, user, group, home), ("nobody", 65534, 65534, "/"))
    accounts = {number: (name, number, its_group, its_home) for name, number, its_group, its_home in known}
    passwd = [
        f"{name}:x:{number}:{its_group}:{name}:{its_home}:/bin/sh" for name, number, its_group, its_home in accounts.values()
    ]
    groups = {its_group: name for name, _, its_group, _ in accounts.values()}
    (folder / "passwd").write_text("\n".join(passwd) + "\n")
    (folder / "group").write_text("".join(f"{name}:x:{number}:\n" for number, name in groups.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m session_runtime.workspace.bundle", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write, for example /bundle/workspace.pyz")
    parser.add_argument("--home", default="/workspace", help="home folder of the user (%(default)s)")
    options = parser.parse_args(arguments)
    write_bundle(options.file)
    write_accounts(options.file.parent, options.home)


if __name__ == "__main__":
    main()
