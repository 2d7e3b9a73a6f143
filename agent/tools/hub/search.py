"""`hub_search`: finds models, datasets, Spaces and papers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from agent.tools.hub.client import HubClient
from agent.tools.hub.text import day, facts, number, shorten
from agent.tools.tool import Tool, ToolError, parameters

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, HfApi, ModelInfo, SpaceInfo, SpaceSearchResult
    from huggingface_hub.hf_api import PaperInfo

SEARCH_LIMIT = 10
"""Results that one call returns, unless the model asks for more."""

SORTS = ["trending_score", "downloads", "likes", "created_at", "last_modified"]

HIDDEN_TAGS = ("region:", "base_model:", "dataset:", "arxiv:", "doi:", "size_categories:", "endpoints_compatible")
"""Beginnings of tags that say little, or too much, in a list of results."""


def search_tool(hub: HubClient) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        kind = arguments["type"]
        if kind == "paper" and not arguments.get("query"):
            raise ToolError("Papers are found by words alone: give a query.")
        return await hub.call(lambda api: _found(api, kind, arguments))

    return Tool(
        name="hub_search",
        description=(
            "Find models, datasets, Spaces or papers on the Hugging Face Hub. Models and datasets are found by words in "
            "their names, by tags, author and order; Spaces and papers by what they are about. Read a result with hub_read."
        ),
        parameters=parameters(
            "type",
            type={"enum": ["model", "dataset", "space", "paper"]},
            query={"type": "string", "description": "For models and datasets one or two words of the name."},
            author={"type": "string", "description": "User or organization. Not for papers, nor are the next two."},
            tags={
                "type": "array",
                "items": {"type": "string"},
                "description": "All of these, such as text-generation, license:mit, language:fr, gguf.",
            },
            sort={"enum": SORTS, "description": "Descending. Spaces have no downloads."},
            limit={"type": "integer", "minimum": 1, "maximum": 50, "description": f"{SEARCH_LIMIT} unless given."},
            offset={"type": "integer", "minimum": 0, "maximum": 1000, "description": "Results to pass over."},
        ),
        call=call,
        timeout=60,
        read_only=True,
    )


def _found(api: HfApi, kind: str, arguments: dict[str, Any]) -> str:
    limit, offset = arguments.get("limit", SEARCH_LIMIT), arguments.get("offset", 0)
    lines = list(islice(_results(api, kind, arguments, offset + limit + 1), offset, offset + limit + 1))
    if not lines:
        return "Nothing more." if offset else "Nothing was found; try fewer or other words."
    more = [f"[there is more; continue with offset {offset + limit}]"] if len(lines) > limit else []
    return "\n".join([*lines[:limit], *more])


def _results(api: HfApi, kind: str, arguments: dict[str, Any], count: int) -> Iterable[str]:
    query, author, tags, sort = (arguments.get(name) or None for name in ("query", "author", "tags", "sort"))
    if kind == "paper":
        return map(_paper, api.list_papers(query=query, limit=count))
    if kind == "space" and query and not author and not sort:
        return map(_found_space, api.search_spaces(query, filter=tags))  # by meaning; the list knows only names
    wanted: dict[str, Any] = {"search": query, "author": author, "filter": tags, "sort": sort, "limit": count}
    if kind == "model":
        return map(_model, api.list_models(**wanted))
    if kind == "dataset":
        return map(_dataset, api.list_datasets(**wanted))
    return map(_space, api.list_spaces(**wanted))


def _model(info: ModelInfo) -> str:
    return facts(info.id, info.pipeline_tag, info.library_name, *_popularity(info), _tags(info.tags))


def _dataset(info: DatasetInfo) -> str:
    return facts(info.id, *_popularity(info), _tags(info.tags), shorten(info.description or "", 200))


def _space(info: SpaceInfo) -> str:
    return facts(info.id, info.sdk, number(info.likes, "likes"), day(info.last_modified), _tags(info.tags))


def _found_space(info: SpaceSearchResult) -> str:
    stage = info.runtime.stage if info.runtime else None
    return facts(info.id, info.sdk, number(info.likes, "likes"), stage, info.ai_short_description or info.title)


def _paper(info: PaperInfo) -> str:
    about = facts(info.id, info.title, day(info.published_at), number(info.upvotes, "upvotes"))
    return f"{about}\n    {shorten(info.summary or '', 300)}"


def _popularity(info: ModelInfo | DatasetInfo) -> tuple[str | None, ...]:
    gated = f"gated ({info.gated})" if info.gated else None
    private = "private" if info.private else None
    created = f"created {day(info.created_at)}" if info.created_at else None
    return (number(info.downloads, "downloads a month"), number(info.likes, "likes"), created, gated, private)


def _tags(tags: list[str] | None) -> str:
    told = [tag for tag in tags or [] if not tag.startswith(HIDDEN_TAGS)]
    return shorten(", ".join(told), 120)
