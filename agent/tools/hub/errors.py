"""What went wrong between the agent and the Hub, in words that name the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

NO_TOKEN = "This session has none; its owner can add HF_TOKEN to the session's Secret (in a terminal: to the environment)."  # noqa: S105 - words

BAD_TOKEN = "The Hub does not accept this session's token; its owner has to put a valid HF_TOKEN into the session's Secret."  # noqa: S105 - words


def explain(error: Exception, *, has_token: bool, page: str | None) -> str | None:
    """Words for a failure of huggingface_hub; None for what is no failure of the Hub, the network or the arguments."""
    import httpx  # late: it imports slowly, and most sessions make no call to the Hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        response = error.response
        return explain_answer(
            response.status_code, response.headers, error.server_message or "", has_token=has_token, page=page
        )
    if isinstance(error, OfflineModeIsEnabled):
        return "The Hub cannot be asked: HF_HUB_OFFLINE is set in the environment of the agent."
    if isinstance(error, httpx.HTTPError):
        return explain_network(error)
    if isinstance(error, json.JSONDecodeError):
        return "The answer is not the Hub's (no JSON); is something between, such as a proxy that wants a login?"
    if isinstance(error, ValueError):  # also the library's own checks of names
        return str(error)
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # so it reports an upload's failure
        return explain(error.__cause__, has_token=has_token, page=page)
    return None


def explain_network(error: httpx.HTTPError) -> str:
    """Words for an answer that did not come."""
    import httpx  # late: it imports slowly, and most sessions make no call to the Hub

    if isinstance(error, httpx.TimeoutException):
        return "The Hub did not answer in time; try again later."
    return f"The Hub cannot be reached ({type(error).__name__}: {error}); check the network or try again later."


def explain_answer(status: int, headers: Mapping[str, str], said: str, *, has_token: bool, page: str | None) -> str:
    """Words for an HTTP error. `headers` are case-insensitive; the Hub tells the cause in X-Error-Code
    (https://huggingface.co/docs/huggingface_hub/package_reference/utilities).
    """
    return f"{_remedy(status, headers, has_token, page)}\n[{status}] {said}".strip()


def _remedy(status: int, headers: Mapping[str, str], has_token: bool, page: str | None) -> str:
    code = headers.get("x-error-code", "")
    token = "" if has_token else f" If it is private, a token is needed. {NO_TOKEN}"
    if code == "GatedRepo":
        there = f" at {page}" if page else ""
        return f"Access is gated: the owner of the token has to ask for it{there}." + ("" if has_token else f" {NO_TOKEN}")
    if code == "RevisionNotFound":
        return "There is no such branch, tag or commit; hub_read with view=refs lists them."
    if code == "EntryNotFound":
        return "There is no such file or folder; hub_read with path=/ lists what is there."
    if status == 401 and has_token and code != "RepoNotFound":
        return BAD_TOKEN
    if status in (401, 404):
        return f"It does not exist, or this session may not see it: check the name and the type.{token}"
    if status == 402:
        return "This has to be paid for, and the account of the token has no credit."
    if status == 403:
        lacking = "The token lacks the permission for this (to write, for most changes)."
        return lacking if has_token else f"This needs a token. {NO_TOKEN}"
    if status == 429:
        return f"Too many requests; {_wait(headers)}."
    if status >= 500:
        return "The Hub has trouble; try again later."
    return "The Hub refuses this."


def _wait(headers: Mapping[str, str]) -> str:
    """When to come back: `Retry-After`, or `t` of the Hub's `RateLimit` (draft-ietf-httpapi-ratelimit-headers)."""
    reset = re.search(r"\bt\s*=\s*(\d+)", headers.get("ratelimit", ""))
    seconds = headers.get("retry-after") or (reset.group(1) if reset else "")
    return f"try again in {seconds} s" if seconds.isdigit() else "try again in some minutes"
