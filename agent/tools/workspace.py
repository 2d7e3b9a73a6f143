"""The tools that act in a workspace: a shell, and reading, writing, editing and listing files."""

from __future__ import annotations

from typing import Any

from agent.images import Image, ImageProblem
from agent.redaction import NO_SECRETS, Redactor
from agent.tools.masked_files import edit_file, write_file
from agent.tools.tool import DEFAULT_TIMEOUT, Tool, ToolError, ToolResult, parameters
from agent.workspace import CommandInterrupted, CommandResult, Entry, ImageFile, Workspace, WorkspaceError

COMMAND_TIMEOUT = 120.0
"""Seconds that a command may take, unless the model asks for more."""

MAX_COMMAND_TIMEOUT = 3600.0

CHANGED_NOTE = "\n[the file had changed since you read or wrote it: read it again before you rely on the rest of it]"

INTERRUPTED_NOTE = "[interrupted by the user: the command was killed]"

READ_LINES = 2000
"""Lines that one read returns, unless the model asks for fewer."""

MAX_DEPTH = 20
"""Levels of folders that one list goes down."""


def workspace_tools(workspace: Workspace, redactor: Redactor = NO_SECRETS) -> tuple[Tool, ...]:
    """`bash`, `read`, `write`, `edit` and `list` in this workspace. `redactor` is what masks the output of `read`, so that a
    file which was read that way can be changed."""
    return (_bash(workspace), _read(workspace), _write(workspace, redactor), _edit(workspace, redactor), _list(workspace))


def _bash(workspace: Workspace) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        timeout = float(arguments.get("timeout", COMMAND_TIMEOUT))
        try:
            result = await workspace.run(arguments["command"], timeout=timeout)
        except WorkspaceError as error:
            raise ToolError(str(error)) from error
        except CommandInterrupted as interrupted:
            raise ToolError(f"{interrupted.result.output}\n{INTERRUPTED_NOTE}{_where(interrupted.result)}") from None
        if result.timed_out:
            note = f"[killed after {timeout:g} s; pass a longer timeout if it needs one]"
            raise ToolError(f"{result.output}\n{note}{_where(result)}")
        if result.exit_code != 0:
            raise ToolError(f"{result.output}\n[exit code {result.exit_code}]{_where(result)}")
        return (result.output or "[no output]") + _where(result)

    return Tool(
        name="bash",
        description=(
            "Run a shell command in the workspace. The working directory and exported variables carry over to the next call, "
            "unless the command is killed; other variables, functions and options do not. The result names the working "
            "directory when it is not the workspace's root; paths of the other tools are relative to the root in any case. "
            "There is no terminal: nothing can be typed in. Start what should keep running with `nohup … >log 2>&1 &`."
        ),
        parameters=parameters(
            "command",
            command={"type": "string", "description": "What to run."},
            timeout={
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": MAX_COMMAND_TIMEOUT,
                "description": f"Seconds after which it is killed; {COMMAND_TIMEOUT:g} unless given.",
            },
        ),
        call=call,
        timeout=MAX_COMMAND_TIMEOUT + DEFAULT_TIMEOUT,  # the command's own is the one that counts
    )


def _where(result: CommandResult) -> str:
    return "" if result.directory is None else f"\n[working directory: {result.directory}]"


def _read(workspace: Workspace) -> Tool:
    async def call(arguments: dict[str, Any]) -> str | ToolResult:
        offset, limit = int(arguments.get("offset", 1)), int(arguments.get("limit", READ_LINES))
        try:
            text = await workspace.read(arguments["path"], offset=offset, limit=limit + 1)
        except ImageFile:
            return await _image(workspace, arguments["path"])
        except WorkspaceError as error:
            raise ToolError(str(error)) from error
        lines = text.removesuffix("\n").split("\n") if text else ["[empty]"]
        shown = (line.removesuffix("\r") for line in lines[:limit])
        numbered = [f"{number:6}\t{line}" for number, line in enumerate(shown, offset)]
        if len(lines) > limit:
            numbered.append(f"[more lines follow; read on with offset {offset + limit}]")
        return "\n".join(numbered)

    return Tool(
        name="read",
        description=(
            "Read a text file. Every line comes with its number and a tab before it. Of an image (PNG, JPEG, GIF or WebP) you "
            "get the picture, if you can see any."
        ),
        parameters=parameters(
            "path",
            path={"type": "string", "description": "The file, relative to the workspace's root."},
            offset={"type": "integer", "minimum": 1, "description": "The first line to read; 1 unless given."},
            limit={
                "type": "integer",
                "minimum": 1,
                "maximum": READ_LINES,
                "description": f"How many lines to read; {READ_LINES} unless given.",
            },
        ),
        call=call,
        read_only=True,
    )


async def _image(workspace: Workspace, path: str) -> ToolResult:
    try:
        image = Image.of(await workspace.read_image(path))
    except WorkspaceError as error:
        raise ToolError(str(error)) from error
    except ImageProblem as error:  # the workspace has looked, but is not trusted
        raise ToolError(f"{path} is {error}") from error
    return ToolResult(f"{path}: {image.description}", images=(image,))


def _write(workspace: Workspace, redactor: Redactor) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        try:
            await write_file(workspace, redactor, arguments["path"], arguments["content"])
        except WorkspaceError as error:
            raise ToolError(str(error)) from error
        return f"wrote {len(arguments['content'])} characters to {arguments['path']}"

    return Tool(
        name="write",
        description="Create a text file, or replace it as a whole. Folders are made as needed.",
        parameters=parameters(
            "path",
            "content",
            path={"type": "string", "description": "The file, relative to the workspace's root."},
            content={"type": "string", "description": "All that the file is to hold."},
        ),
        call=call,
    )


def _edit(workspace: Workspace, redactor: Redactor) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        try:
            edited = await edit_file(
                workspace,
                redactor,
                arguments["path"],
                arguments["old"],
                arguments["new"],
                bool(arguments.get("replace_all", False)),
            )
        except WorkspaceError as error:
            raise ToolError(str(error)) from error
        note = CHANGED_NOTE if edited.had_changed else ""
        return f"replaced {edited.count} occurrence{'s' if edited.count > 1 else ''} in {arguments['path']}{note}"

    return Tool(
        name="edit",
        description="Replace a piece of a text file. The piece must occur exactly once, unless replace_all is true.",
        parameters=parameters(
            "path",
            "old",
            "new",
            path={"type": "string", "description": "The file, relative to the workspace's root."},
            old={"type": "string", "description": "The text to replace, exactly as in the file, without line numbers."},
            new={"type": "string", "description": "What to put in its place."},
            replace_all={"type": "boolean", "description": "Replace every occurrence."},
        ),
        call=call,
    )


def _list(workspace: Workspace) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        path, glob, depth = arguments.get("path", "."), arguments.get("glob", "*"), int(arguments.get("depth", 1))
        try:
            listing = await workspace.list(path, glob=glob, depth=depth)
        except WorkspaceError as error:
            raise ToolError(str(error)) from error
        lines = [_line(entry) for entry in listing.entries] or ["[nothing]"]
        if listing.truncated:
            lines.append("[there is more; list a folder of these, or pass a narrower glob or a smaller depth]")
        return "\n".join(lines)

    return Tool(
        name="list",
        description="List a folder: each entry with its size in bytes and its path. Folders end in /, links in @.",
        parameters=parameters(
            path={"type": "string", "description": "The folder, relative to the workspace's root, which it is unless given."},
            glob={"type": "string", "description": "Only names that match this, for example *.py."},
            depth={
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_DEPTH,
                "description": "How many levels of folders to go down; 1 unless given.",
            },
        ),
        call=call,
        read_only=True,
    )


def _line(entry: Entry) -> str:
    path = "".join(character if character.isprintable() else "?" for character in entry.path)  # as `ls` does
    mark = {"folder": "/", "link": "@"}.get(entry.kind, "")
    return f"{entry.size:>10}  {path}{mark}"
