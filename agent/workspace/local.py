"""A workspace on this machine: real processes, real files."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Callable, Mapping, TypeVar  # noqa: UP035 - Python 3.9

from agent.workspace import CommandInterrupted, CommandResult, Edited, Listing, WorkspaceError
from agent.workspace.files import edit_file, read_image_file, read_lines, replace_file
from agent.workspace.listing import list_folder
from agent.workspace.output import Output
from agent.workspace.processes import adopt_orphans, drain, kill_all
from agent.workspace.seen import Seen
from agent.workspace.shell import Shell, Start

_T = TypeVar("_T")

PIPE_GRACE = 0.2
"""Seconds to wait for the rest of the output once the command itself has ended.

A process left in the background keeps the pipe open for as long as it lives; its output is not waited for.
"""

BACKGROUND_NOTE = (
    "\n[processes of this command still run in the background; what they print from now on is dropped, so redirect it to a "
    "file if it is needed]"
)


class LocalWorkspace:
    """A workspace on this machine, below `root`.

    `environment` is the whole environment of the first command; None passes on this process's own. What commands leave to the
    next one is kept in the folder `state`; None means that it ends with this object.
    """

    def __init__(self, root: Path, environment: Mapping[str, str] | None = None, state: Path | None = None) -> None:
        self._root = Path(root)
        self._environment = None if environment is None else dict(environment)
        self._seen = Seen()
        self._shell = Shell(self._root, self._environment, state)

    async def run(self, command: str, *, timeout: float, on_output: Callable[[str], None] | None = None) -> CommandResult:
        output = Output(on_output)
        start = self._shell.start(command)
        process, transport = await self._start(start, output)
        timed_out = interrupted = False
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except asyncio.TimeoutError:  # noqa: UP041 - Python 3.9, where it is not the builtin TimeoutError
            timed_out = True
        except asyncio.CancelledError:
            interrupted = True
        try:
            # A command that ended by itself may have left a server in the background on purpose; one that was cut off takes
            # everything it started with it.
            if process.returncode is None:
                await kill_all(process)
            if not output.ended.done():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(asyncio.shield(output.ended), PIPE_GRACE)
            background = not output.ended.done()
            if background:
                drain(transport)
        finally:
            transport.close()
            if timed_out or interrupted:
                self._shell.dropped(start)
        directory = self._shell.ended(start)
        result = CommandResult(
            exit_code=None if timed_out or interrupted else process.returncode,
            output=start.note + output.text() + (BACKGROUND_NOTE if background else ""),
            timed_out=timed_out,
            truncated=output.dropped > 0,
            directory=None if directory is None else str(directory),
        )
        if interrupted:
            raise CommandInterrupted(result)
        return result

    async def _start(self, start: Start, output: Output) -> tuple[asyncio.subprocess.Process, asyncio.ReadTransport]:
        """Start the command with one pipe for both of its outputs.

        The pipe is ours and not the subprocess module's, because asyncio's `Process.wait` waits for its own pipes to
        close as well (bpo-119710, changed in 3.12.4), that is, for every process in the background.
        """
        reader, writer = os.pipe()
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: output, os.fdopen(reader, "rb", buffering=0)
            )
        except BaseException:
            os.close(writer)
            raise
        try:
            process = await asyncio.create_subprocess_exec(
                *start.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                cwd=start.directory,
                env=self._environment,
                start_new_session=True,
                preexec_fn=adopt_orphans,
            )
        except OSError as error:
            transport.close()
            raise WorkspaceError(f"the shell could not be started in {self._root}: {error.strerror}") from error
        except BaseException:
            transport.close()
            raise
        finally:
            os.close(writer)
        return process, transport

    async def read(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        def work() -> str:
            file = self._resolve(path)
            self._seen.note(file)  # before: what changes during it has not been seen
            return read_lines(file, path, offset, limit)

        return await _in_thread(work)

    async def read_image(self, path: str) -> bytes:
        def work() -> bytes:
            file = self._resolve(path)
            self._seen.note(file)
            return read_image_file(file, path)

        return await _in_thread(work)

    async def write(self, path: str, content: str) -> None:
        def work() -> None:
            file = self._resolve(path)
            self._seen.check_before_replacing(file, path)
            replace_file(file, path, content.encode("utf-8", "surrogateescape"))
            self._seen.note(file)

        await _in_thread(work)

    async def edit(self, path: str, old: str, new: str, *, replace_all: bool = False) -> Edited:
        def work() -> Edited:
            file = self._resolve(path)
            changed = self._seen.has_changed(file)
            try:
                count = edit_file(file, path, old, new, replace_all)
            except WorkspaceError as error:
                note = f"\n[{path} has changed since you read or wrote it]" if changed else ""
                raise WorkspaceError(f"{error}{note}") from error
            if not changed:  # otherwise the model still does not know the rest of it
                self._seen.note(file)
            return Edited(count, changed)

        return await _in_thread(work)

    async def list(self, path: str = ".", *, glob: str = "*", depth: int = 1) -> Listing:
        return await _in_thread(lambda: list_folder(self._resolve(path), path, glob, depth))

    def _resolve(self, path: str) -> Path:
        if not path or "\0" in path:
            raise WorkspaceError("the path is empty or holds a NUL character")
        inside = path[2:] if path[:2] == "~/" else "." if path == "~" else path  # the home of commands is the root
        return self._root / inside


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Do blocking file work off the event loop, with the system's errors said in words."""
    try:
        return await asyncio.get_running_loop().run_in_executor(None, work)
    except OSError as error:
        raise WorkspaceError(f"{error.strerror or error}: {error.filename}") from error
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise WorkspaceError(str(error)) from error
    except MemoryError as error:
        raise WorkspaceError("there is not enough memory for this") from error
