"""`hub_files`: uploads, deletes and downloads files of a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from agent.tools.hub.client import HubClient
from agent.tools.hub.content import as_file, describe, fetch, is_binary
from agent.tools.hub.text import inside, size
from agent.tools.tool import Tool, ToolError, parameters
from agent.workspace import Workspace, WorkspaceError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

DOWNLOAD_LIMIT = 5_000_000
"""Bytes of a file that can be downloaded: the workspace of a session takes it in one message, of 16 MiB with all escapes."""

UPLOAD_LIMIT = 20_000_000
"""Characters of a file that can be uploaded."""

READ_LINES = 1000
"""Lines that are read from the workspace at first."""

READ_CHARACTERS = 256 * 1024
"""About as many are read at a time after that; a workspace returns at most `agent.workspace.READ_LIMIT`."""


def files_tool(hub: HubClient, workspace: Workspace) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        if arguments["action"] == "download":
            return await _download(hub, workspace, arguments)
        hub.require_token()
        return await _commit(hub, workspace, arguments)

    return Tool(
        name="hub_files",
        description=(
            "Upload, delete or download files of a repository on the Hugging Face Hub. Only text can be uploaded or "
            "downloaded. Each upload or delete is one commit; with pull_request it is proposed instead of made. The "
            "repository must exist (hub_repo creates it)."
        ),
        parameters=parameters(
            "action",
            "repo",
            "files",
            action={"enum": ["upload", "delete", "download"]},
            repo={"type": "string", "description": "owner/name"},
            type={"enum": ["model", "dataset", "space"], "description": "model unless given."},
            files={
                "type": "array",
                "minItems": 1,
                "maxItems": 100,
                "items": parameters(
                    "path",
                    path={"type": "string", "description": "In the repository; to delete a folder, with / at its end."},
                    workspace_path={
                        "type": "string",
                        "description": "Text file in the workspace to upload from or download to; as path unless given.",
                    },
                    content={"type": "string", "description": "Text to upload, instead of a file of the workspace."},
                ),
            },
            revision={"type": "string", "description": "Branch or refs/pr/N (any revision to download); main unless given."},
            message={"type": "string", "description": "Of the commit."},
            pull_request={"type": "boolean", "description": "Open a pull request with the commit."},
        ),
        call=call,
        timeout=600,
        needs_consent=consent,
    )


def consent(arguments: Mapping[str, Any]) -> str | None:
    """Uploads and deletes are published, or destroy; downloads fill the workspace only."""
    if arguments["action"] == "download":
        return None
    count, where = len(arguments["files"]), f"{arguments.get('type', 'model')} {arguments['repo']}"
    return f"it would {arguments['action']} {count} file{'s' if count > 1 else ''} in the {where} on the Hugging Face Hub"


async def _commit(hub: HubClient, workspace: Workspace, arguments: Mapping[str, Any]) -> str:
    repo, kind, action = arguments["repo"], arguments.get("type", "model"), arguments["action"]
    files = arguments["files"]
    contents = [await _content(workspace, file) for file in files] if action == "upload" else []
    message = arguments.get("message") or f"{action.capitalize()} {files[0]['path']}{' and more' if len(files) > 1 else ''}"

    def work(api: HfApi) -> str:
        operations = _additions(files, contents) if action == "upload" else _deletions(files)
        done = api.create_commit(
            repo,
            operations,
            commit_message=message,
            repo_type=kind,
            revision=arguments.get("revision"),
            create_pr=arguments.get("pull_request", False),
        )
        proposed = f"\npull request: {done.pr_url}" if done.pr_url else ""
        return f"{action} done, commit {done.oid}: {done.commit_url}{proposed}"

    return await hub.call(work, page=hub.page(repo, kind))


def _additions(files: Sequence[Mapping[str, str]], contents: Sequence[bytes]) -> list[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd  # late: it imports slowly, and most sessions make no call to the Hub

    # Never a path: the library would read it from the agent's own container, where its state lies. And no plain bytes:
    # large ones would go through hf_xet, which has threads and a cache on disk of its own, and hears of no interrupt.
    return [CommitOperationAdd(file["path"], BytesIO(content)) for file, content in zip(files, contents, strict=True)]


def _deletions(files: Sequence[Mapping[str, str]]) -> list[CommitOperationDelete]:
    from huggingface_hub import CommitOperationDelete  # late: it imports slowly, and most sessions make no call to the Hub

    return [CommitOperationDelete(file["path"]) for file in files]


async def _content(workspace: Workspace, file: Mapping[str, str]) -> bytes:
    if "content" in file:
        return file["content"].encode()
    path = file.get("workspace_path", file["path"])
    try:
        text = await _read_all(workspace, path)
    except WorkspaceError as error:
        raise ToolError(f"{error}. Only text files can be uploaded.") from error
    if "\N{REPLACEMENT CHARACTER}" in text:  # the workspace reads what is no UTF-8 as this
        raise ToolError(f"{path} is not UTF-8 text; only text files can be uploaded.")
    return text.encode()


async def _read_all(workspace: Workspace, path: str) -> str:
    """A text file as a whole, in pieces of as many lines as fit."""
    parts: list[str] = []
    offset, count = 1, READ_LINES
    while True:
        try:
            # One line more than is kept: reading beyond the last line is an error.
            text = await workspace.read(path, offset=offset, limit=count + 1)
        except WorkspaceError:
            if count == 1:
                raise
            count = max(1, count // 10)  # it may have been too much at once; any other error comes again
            continue
        lines = text.split("\n", count)
        ended = len(lines) <= count or not lines[-1]
        parts.append(text if ended else text.removesuffix(lines[-1]))
        if sum(map(len, parts)) > UPLOAD_LIMIT:
            raise ToolError(f"{path} is larger than {size(UPLOAD_LIMIT)}, the most that can be uploaded.")
        if ended:
            return "".join(parts)
        offset += count
        count = max(1, count * READ_CHARACTERS // len(text))


async def _download(hub: HubClient, workspace: Workspace, arguments: Mapping[str, Any]) -> str:
    repo, kind, revision = arguments["repo"], arguments.get("type", "model"), arguments.get("revision")
    report, saved = [], 0
    for file in arguments["files"]:
        path = inside("path", file["path"].strip("/"))

        def work(api: HfApi, path: str = path) -> tuple[str, str]:
            return _text_of(api, repo, kind, path, revision)

        text, problem = await hub.call(work, page=hub.page(repo, kind))
        problem = problem or await _save(workspace, file.get("workspace_path", path), text)
        saved += not problem
        report.append(problem or f"{path} is in the workspace as {file.get('workspace_path', path)} ({len(text)} characters)")
    if not saved:
        raise ToolError("\n".join(report))
    return "\n".join(report)


async def _save(workspace: Workspace, target: str, text: str) -> str:
    """Why it could not be saved, if so."""
    try:
        await workspace.write(target, text)
    except WorkspaceError as error:
        return f"[{target} could not be written: {error}]"
    return ""


def _text_of(api: HfApi, repo: str, kind: str, path: str, revision: str | None) -> tuple[str, str]:
    """A file's text, or why it cannot be had."""
    found = api.get_paths_info(repo, [path], revision=revision, repo_type=kind)
    file = as_file(found[0]) if found else None
    if file is None:
        return "", f"[there is no file {path}; hub_read with path=/ lists what is there]"
    if file.size > DOWNLOAD_LIMIT:
        return "", describe(api, repo, kind, file, revision, f"is larger than {size(DOWNLOAD_LIMIT)}")
    data = fetch(api, repo, kind, path, revision, 0, DOWNLOAD_LIMIT)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "", describe(api, repo, kind, file, revision)
    return ("", describe(api, repo, kind, file, revision)) if is_binary(data) else (text, "")
