"""`hub_read`: cards, files, branches, discussions, and papers."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from agent.tools.hub.client import HubClient
from agent.tools.hub.content import fetch, read_path
from agent.tools.hub.text import day, facts, inside, number, shorten, size, window
from agent.tools.tool import Tool, ToolError, parameters

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.community import DiscussionEvent
    from huggingface_hub.hf_api import DatasetInfo, KernelInfo, ModelInfo, SpaceInfo

CARD_LIMIT = 200_000
"""Bytes of a card that are looked at."""

CARD_FILES = 30
"""Files that are named with a card."""

DISCUSSIONS = 30
"""Discussions that one call lists."""

COMMENT_LIMIT = 2000
"""Characters of a comment."""


def read_tool(hub: HubClient) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        repo, kind = arguments["repo"], arguments.get("type", "model")
        page = f"{hub.settings.endpoint}/papers/{repo}" if kind == "paper" else hub.page(repo, kind)
        return await hub.call(lambda api: _read(api, repo, kind, arguments), page=page)

    return Tool(
        name="hub_read",
        description=(
            "Read about a model, dataset, Space or paper on the Hugging Face Hub. Without more arguments it is the card or "
            "the paper's text; with path a file or folder of the repository; with view its branches and tags, or its "
            "discussions and pull requests; with number one of these and its diff. Rows of a dataset: hub_dataset."
        ),
        parameters=parameters(
            "repo",
            repo={"type": "string", "description": "owner/name; for a paper its arXiv id."},
            type={"enum": ["model", "dataset", "space", "paper"], "description": "model unless given."},
            path={"type": "string", "description": "A file, or a folder to list; / is the whole repository."},
            view={"enum": ["refs", "discussions"]},
            number={"type": "integer", "minimum": 1, "description": "A discussion or pull request."},
            revision={"type": "string", "description": "Branch, tag, commit, or refs/pr/N; main unless given."},
            offset={"type": "integer", "minimum": 0, "description": "Where to read on, as the last result said."},
        ),
        call=call,
        timeout=60,
        read_only=True,
    )


def _read(api: HfApi, repo: str, kind: str, arguments: dict[str, Any]) -> str:
    offset = arguments.get("offset", 0)
    revision = arguments.get("revision")
    if revision is not None:
        inside("revision", revision)
    if kind == "paper":
        return window(_paper(api, repo), offset)
    if "path" in arguments:
        return read_path(api, repo, kind, arguments["path"], revision, offset)
    if "number" in arguments:
        return window(_discussion(api, repo, kind, arguments["number"]), offset)
    match arguments.get("view"):
        case "refs":
            return _refs(api, repo, kind)
        case "discussions":
            return _discussions(api, repo, kind, offset)
        case _:
            return window(_card(api, repo, kind, revision), offset)


def _card(api: HfApi, repo: str, kind: str, revision: str | None) -> str:
    info = api.repo_info(repo, repo_type=kind, revision=revision)
    files = [file.rfilename for file in getattr(info, "siblings", None) or []]
    card = b"[no card]"
    if "README.md" in files:
        card = fetch(api, repo, kind, "README.md", revision, 0, CARD_LIMIT)
    more = f"; hub_read with path=/ lists all {len(files)}" if len(files) > CARD_FILES else ""
    listed = f"files: {', '.join(files[:CARD_FILES])}{more}"
    return f"{_about(info, kind)}\n{listed}\n\n{without_metadata(card.decode('utf-8', errors='replace'))}"


def _about(info: ModelInfo | DatasetInfo | SpaceInfo | KernelInfo, kind: str) -> str:
    """What the Hub knows of a repository; what it does not tell of this kind is left out."""

    def known(name: str) -> Any:
        return getattr(info, name, None)

    weights = number(known("safetensors").total, "parameters") if known("safetensors") else None
    runtime = facts(known("runtime").stage, known("runtime").hardware) if known("runtime") else None
    popularity = (number(known("downloads"), "downloads a month"), number(known("likes"), "likes"))
    access = ("private" if info.private else None, f"gated ({info.gated})" if known("gated") else None)
    technical = (known("pipeline_tag"), known("library_name"), known("sdk"), runtime, weights, size(known("used_storage")))
    head = facts(f"{kind} {info.id}", *technical, *popularity, *access, f"changed {day(info.last_modified)}")
    return "\n".join((head, f"commit: {known('sha')}", f"tags: {shorten(', '.join(known('tags') or []), 600)}"))


def without_metadata(card: str) -> str:
    """A card without the YAML before it, which the Hub has told already."""
    return re.sub(r"\A\s*---\n.*?\n---\s*\n", "", card, count=1, flags=re.DOTALL)


def _refs(api: HfApi, repo: str, kind: str) -> str:
    refs = api.list_repo_refs(repo, repo_type=kind)
    named = (("branch", refs.branches), ("tag", refs.tags), ("conversion", refs.converts))
    return "\n".join(f"{what} {ref.name} at {ref.target_commit[:12]}" for what, found in named for ref in found)


def _discussions(api: HfApi, repo: str, kind: str, offset: int) -> str:
    found = list(islice(api.get_repo_discussions(repo, repo_type=kind), offset, offset + DISCUSSIONS + 1))
    lines = [
        facts(
            f"#{one.num} {one.title}",
            "pull request" if one.is_pull_request else None,
            one.status,
            one.author,
            day(one.created_at),
        )
        for one in found[:DISCUSSIONS]
    ]
    if len(found) > DISCUSSIONS:
        lines.append(f"[there is more; continue with offset {offset + DISCUSSIONS}]")
    return "\n".join(lines) or "There are no discussions."


def _discussion(api: HfApi, repo: str, kind: str, num: int) -> str:
    one = api.get_discussion_details(repo, num, repo_type=kind)
    what = f"pull request into {one.target_branch}" if one.is_pull_request else "discussion"
    head = facts(f"#{one.num} {one.title}", what, one.status, one.author, day(one.created_at), one.url)
    conflicts = f"conflicts: {one.conflicting_files}" if one.conflicting_files else ""
    diff = f"\n{one.diff}" if one.diff else ""
    return "\n".join(filter(None, (head, conflicts, *map(_event, one.events), diff)))


def _event(event: DiscussionEvent) -> str:
    # Late: it imports slowly, and most sessions make no call to the Hub.
    from huggingface_hub.community import DiscussionComment, DiscussionCommit, DiscussionStatusChange, DiscussionTitleChange

    when = f"{day(event.created_at)} {event.author}"
    match event:
        case DiscussionComment(hidden=True):
            return f"{when}: [hidden]"
        case DiscussionComment():
            return f"{when}: {event.content[:COMMENT_LIMIT]}"
        case DiscussionCommit():
            return f"{when} committed {event.oid[:12]}: {event.summary}"
        case DiscussionStatusChange():
            return f"{when}: {event.new_status}"
        case DiscussionTitleChange():
            return f"{when} renamed it to {event.new_title}"
        case _:
            return f"{when}: {event.type}"


def _paper(api: HfApi, paper: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError  # late: it imports slowly, and most sessions make no call to the Hub

    if not re.fullmatch(r"\d{4}\.\d{4,5}", paper):
        raise ToolError(f"{paper!r} is no arXiv id, such as 2307.09288; hub_search finds papers by words.")
    info = api.paper_info(paper)
    authors = shorten(", ".join(author.name for author in info.authors or []), 300)
    linked = [
        f"{what}: {shorten(', '.join(one.id for one in found), 400)}"
        for what, found in (("models", info.linked_models), ("datasets", info.linked_datasets), ("spaces", info.linked_spaces))
        if found
    ]
    head = facts(info.id, info.title, day(info.published_at), number(info.upvotes, "upvotes"), info.github_repo)
    try:
        text = api.read_paper(paper)
    except HfHubHTTPError as error:
        if error.response.status_code != 404:
            raise
        text = f"Abstract: {info.summary}\n[the Hub has no text of this paper; https://arxiv.org/pdf/{paper} has]"
    return "\n".join((head, f"authors: {authors}", *linked, "", text))
