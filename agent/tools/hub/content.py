"""Files of a repository: a piece of one as text, however large it is, and listings."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from agent.tools.hub.text import TEXT_LIMIT, facts, inside, size
from agent.tools.tool import ToolError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

LIST_LIMIT = 200
"""Entries of a folder that one call returns."""


def read_path(api: HfApi, repo: str, kind: str, path: str, revision: str | None, offset: int) -> str:
    """A file's text from a byte on, or a folder's entries from one on."""
    path = inside("path", path.strip("/"))
    if not path:
        return list_folder(api, repo, kind, None, revision, offset)
    found = api.get_paths_info(repo, [path], revision=revision, repo_type=kind)
    if not found:
        raise ToolError(f"{repo} has no {path}; hub_read with path=/ lists what is there.")
    file = as_file(found[0])
    if file is None:
        return list_folder(api, repo, kind, path, revision, offset)
    return read_file(api, repo, kind, file, revision, offset)


def as_file(entry: object) -> RepoFile | None:
    from huggingface_hub.hf_api import RepoFile  # late: it imports slowly, and most sessions make no call to the Hub

    return entry if isinstance(entry, RepoFile) else None


def list_folder(api: HfApi, repo: str, kind: str, path: str | None, revision: str | None, offset: int) -> str:
    tree = api.list_repo_tree(repo, path, revision=revision, repo_type=kind)
    entries = list(islice(tree, offset, offset + LIST_LIMIT + 1))
    lines = [_entry(entry.path, as_file(entry)) for entry in entries[:LIST_LIMIT]]
    if len(entries) > LIST_LIMIT:
        lines.append(f"[there is more; continue with offset {offset + LIST_LIMIT}]")
    return "\n".join(lines) or "[empty]"


def _entry(path: str, file: RepoFile | None) -> str:
    if file is None:
        return f"{path}/"
    return facts(path, size(file.size), "LFS" if file.lfs else None)


def read_file(api: HfApi, repo: str, kind: str, file: RepoFile, revision: str | None, offset: int) -> str:
    if offset and offset >= file.size:
        raise ToolError(f"{file.path} has only {file.size} bytes.")
    piece = fetch(api, repo, kind, file.path, revision, offset, TEXT_LIMIT)
    if is_binary(piece):
        return describe(api, repo, kind, file, revision)
    end = offset + len(piece)
    text = piece.decode("utf-8", errors="ignore")  # the ends may go through a character
    if end >= file.size:
        return text or "[empty]"
    return f"{text}\n[read on with offset {end}; {file.size} bytes in all]"


def is_binary(data: bytes) -> bool:
    return b"\0" in data


def describe(api: HfApi, repo: str, kind: str, file: RepoFile, revision: str | None, why: str = "is binary") -> str:
    """Instead of the content."""
    rows = " hub_dataset shows the rows of a dataset." if kind == "dataset" else ""
    return (
        f"[{file.path} ({size(file.size)}) {why}; it was not downloaded.{rows}\n"
        f"Where no token is needed, a command can fetch it: {address(api, repo, kind, file.path, revision)}]"
    )


def address(api: HfApi, repo: str, kind: str, path: str, revision: str | None) -> str:
    """Where the content of a file is served."""
    from huggingface_hub import hf_hub_url  # late: it imports slowly, and most sessions make no call to the Hub

    return hf_hub_url(repo, path, repo_type=kind, revision=revision, endpoint=api.endpoint)


def fetch(api: HfApi, repo: str, kind: str, path: str, revision: str | None, start: int, length: int) -> bytes:
    """At most `length` bytes of a file from `start` on; no more than that is read, no matter what the server sends."""
    # Late: it imports slowly, and most sessions make no call to the Hub.
    from huggingface_hub import get_session, hf_raise_for_status

    headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity", **(api.headers or {})}
    if api.token:
        headers["Authorization"] = f"Bearer {api.token}"
    # No method of the library reads a part of a file; its session takes the token off where the file lies elsewhere.
    with get_session().stream("GET", address(api, repo, kind, path, revision), headers=headers) as response:
        if response.status_code == 416:  # beyond the end, as every byte of an empty file is
            return b""
        hf_raise_for_status(response)
        skip = start if response.status_code == 200 else 0  # the server does not know ranges
        data = bytearray()
        for chunk in response.iter_bytes():
            data += chunk[skip:]
            skip = max(0, skip - len(chunk))
            if len(data) >= length:
                break
    return bytes(data[:length])
