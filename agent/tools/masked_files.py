"""Changes of files that the model has read with secrets masked: the masks stand for what is in the file.

Nothing leaves the file this way: what a mask stands for is put back where it was, or beside it.
"""

from __future__ import annotations

from agent.redaction import MASK, Redactor, UnclearMask
from agent.tools.tool import ToolError
from agent.workspace import Edited, Workspace, WorkspaceError


async def edit_file(workspace: Workspace, redactor: Redactor, path: str, old: str, new: str, replace_all: bool) -> Edited:
    """Replace text as `Workspace.edit` does; `old` may be what a read has shown. Raises WorkspaceError and ToolError."""
    if MASK not in old:
        return await workspace.edit(path, old, new, replace_all=replace_all)
    text = (await workspace.read(path)).replace("\r\n", "\n")
    found = redactor.originals(old.replace("\r\n", "\n"), text)
    if not found:
        return await workspace.edit(path, old, new, replace_all=replace_all)  # which says that it does not occur
    if len(found) > 1 and not replace_all:
        raise ToolError(f"the text to replace occurs {len(found)} times in {path}; add lines around it, or replace all of them")
    count = 0
    for original in dict.fromkeys(found):
        edited = await workspace.edit(path, original, _restored(redactor, path, new, original), replace_all=replace_all)
        count += edited.count
    return Edited(count)


async def write_file(workspace: Workspace, redactor: Redactor, path: str, content: str) -> None:
    """Write as `Workspace.write` does; masks in the content stand for what the file holds now. Raises WorkspaceError and
    ToolError."""
    if MASK in content:
        try:
            before = await workspace.read(path)
        except WorkspaceError:  # a new file, or one that nobody has read as text
            before = ""
        content = _restored(redactor, path, content, before)
    await workspace.write(path, content)


def _restored(redactor: Redactor, path: str, text: str, original: str) -> str:
    try:
        restored: str = redactor.restored(text, original)
    except UnclearMask as error:
        raise ToolError(f"{path} was not changed: {error}. Change it with edits that each have one {MASK}.") from None
    return restored
