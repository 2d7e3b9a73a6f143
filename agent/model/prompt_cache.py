"""Anthropic's prompt cache: what to keep is marked in the request (`cache_control`), and reading it costs a tenth.

https://docs.claude.com/en/docs/build-with-claude/prompt-caching
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PROVIDERS = frozenset({"anthropic", "bedrock", "vertex_ai", "openrouter"})
"""Those of litellm's providers that serve Claude and take marks."""

MARK = {"type": "ephemeral"}


def takes_marks(routed_name: str, info: Mapping[str, Any] | None) -> bool:
    """Whether a model, by its name and by what the price table says of it, has a cache that is asked for.

    Claude that the table does not have yet is taken for one that has.
    """
    provider, slash, _ = routed_name.partition("/")
    if "claude" not in routed_name.lower() or (slash and provider not in PROVIDERS):
        return False
    return info is None or info.get("supports_prompt_caching") is not False


def marked(messages: Sequence[dict[str, Any]], with_tools: bool) -> list[dict[str, Any]]:
    """The messages of a request, as litellm takes them, with up to three marks of the four that are allowed.

    One is behind the system message, which the tools come before. One is behind the last message, so that the next step
    finds all of it; one is where the last request had its end, because only 20 blocks before a mark are looked at.
    A request that nothing will follow (for a summary, without tools and answers) has none: writing costs a quarter more.
    """
    answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers and not with_tools:
        return list(messages)
    ends = {0, len(messages) - 1, *(at - 1 for at in answers[-1:])}
    return [
        _with_mark(message) if at in ends and message["role"] != "assistant" else message for at, message in enumerate(messages)
    ]


def _with_mark(message: dict[str, Any]) -> dict[str, Any]:
    """litellm reads the mark of a user's message with several parts at its last part."""
    if message["role"] == "user" and isinstance(message["content"], list):
        *parts, last = message["content"]
        return {**message, "content": [*parts, {**last, "cache_control": MARK}]}
    return {**message, "cache_control": MARK}
