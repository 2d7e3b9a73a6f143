"""The shell of commands: each call is a new process, which continues where the last one was.

The working directory and the exported variables carry over, as in a terminal. A shell writes them to a file when it exits, and
the next one reads it, so that they outlive the server too. A shell that is killed writes none: the earlier ones stay.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import tempfile
import uuid
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence  # noqa: UP035 - Python 3.9

STATE_LIMIT = 256 * 1024
"""Bytes of variables that carry over; with more, nothing does."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class Start:
    """How to start the shell of one command."""

    arguments: Sequence[str]
    directory: Path
    note: str
    """For the model, before the output."""
    state: Path
    """Where the shell writes what carries over."""


class Shell:
    """What carries over from one command to the next. `environment` is that of the first; None is this process's own.

    It is kept in `folder`; None means that it ends with this object.
    """

    def __init__(self, root: Path, environment: Mapping[str, str] | None, folder: Path | None = None) -> None:
        self._program = shutil.which("bash") or "/bin/sh"
        self._root = root
        self._names = [name for name in (os.environ if environment is None else environment) if _NAME.match(name)]
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="agentsession-shell-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._folder = folder
        self._state = folder / "state"

    def start(self, command: str) -> Start:
        """For this command. Call `ended` with it when its shell has exited by itself, and `dropped` otherwise."""
        with contextlib.suppress(OSError):  # a full disk, for one: then nothing carries over
            self._folder.mkdir(parents=True, exist_ok=True)
        state = self._folder / uuid.uuid4().hex
        directory, note, restore = self._root, "", ""
        last = _directory(self._state)
        if last is not None:
            restore = f"unset -v {' '.join(self._names)}; . {shlex.quote(str(self._state))} 2>/dev/null; "
            if last.is_dir():
                directory = last
            else:
                note = f"[the working directory {last} is gone; this command began in {self._root}]\n"
        save = f"{{ {{ export -p; printf '#'; pwd -P; }} >|{shlex.quote(str(state))}; }} 2>/dev/null"
        script = f'{restore}trap {shlex.quote(save)} EXIT; eval "set --; $1"'
        return Start((self._program, "-c", script, os.path.basename(self._program), command), directory, note, state)

    def ended(self, start: Start) -> Path | None:
        """Take over what the shell has written; returns the working directory, or None if that is the root."""
        with contextlib.suppress(OSError):
            if _directory(start.state) is not None:
                os.replace(start.state, self._state)
        self.dropped(start)
        last = _directory(self._state)
        return None if last is None or last == Path(os.path.realpath(self._root)) else last

    def dropped(self, start: Start) -> None:
        """Remove what the shell may have written before it was killed."""
        with contextlib.suppress(OSError):
            start.state.unlink()


def _directory(state: Path) -> Path | None:
    """The working directory in what a shell has written; None when that is not there, or not whole."""
    try:
        if state.stat().st_size > STATE_LIMIT:
            return None
        content = state.read_bytes()
    except OSError:
        return None
    last = content[:-1].rpartition(b"\n")[2]
    return Path(os.fsdecode(last[1:])) if content.endswith(b"\n") and last.startswith(b"#/") else None
