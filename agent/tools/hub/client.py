"""The way to the Hub: huggingface_hub in a thread of its own, with the session's token and no other."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar

from agent.tools.hub.errors import NO_TOKEN, explain
from agent.tools.tool import ToolError

if TYPE_CHECKING:
    import httpx
    from huggingface_hub import HfApi

T = TypeVar("T")

HUB = "https://huggingface.co"

USER_AGENT = "agentsession"

HTTP_TIMEOUT = 30.0
"""Seconds to wait for a connection, or for the next bytes of an answer, where huggingface_hub would wait indefinitely."""


@dataclass(frozen=True)
class HubSettings:
    """Whose Hub the tools talk to, and as whom."""

    token: str | None = field(default=None, repr=False)
    """None means without any: the login of this machine and its environment are never used."""
    endpoint: str = HUB
    viewer: str | None = None
    """Address of the dataset viewer API (https://huggingface.co/docs/dataset-viewer); None means where the `datasets`
    library looks for that of a Hub: the token of one Hub must not get to another's."""

    @property
    def viewer_address(self) -> str:
        return self.viewer or self.endpoint.replace("://", "://datasets-server.", 1)

    @classmethod
    def from_credentials(cls, credentials: Mapping[str, str]) -> Self:
        """By the names that Hugging Face's own tools use: HF_TOKEN, and HF_ENDPOINT for another Hub. A Secret that was
        made from a file ends with a line break, which no header may have in it.
        """
        token, endpoint = (credentials.get(name, "").strip() for name in ("HF_TOKEN", "HF_ENDPOINT"))
        return cls(token=token or None, endpoint=endpoint.rstrip("/") or HUB)


class HubClient:
    """Runs blocking work with huggingface_hub off the event loop. The library is imported when it is first needed."""

    def __init__(self, settings: HubSettings) -> None:
        self.settings = settings

    async def call(self, work: Callable[[HfApi], T], *, page: str | None = None) -> T:
        """The result of `work`; its failure is a ToolError that names the remedy.

        `page` is where a person finds the thing that is asked for. A cancelled call returns at once; its thread sends
        no further request, and ends with the one under way.
        """
        try:
            return await _in_thread(lambda: work(self._api))
        except ToolError:
            raise
        except Exception as error:
            words = explain(error, has_token=self.settings.token is not None, page=page)
            if words is None:
                raise
            raise ToolError(words) from error

    def require_token(self) -> str:
        """The session's token; ToolError when it has none."""
        if self.settings.token is None:
            raise ToolError(f"This needs a Hugging Face token. {NO_TOKEN}")
        return self.settings.token

    def page(self, repo: str, kind: str) -> str:
        """Address of a repository for people."""
        return f"{self.settings.endpoint}/{'' if kind == 'model' else f'{kind}s/'}{repo}"

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi  # late: it imports slowly, and most sessions make no call to the Hub

        _keep_quiet()
        # False, not None: with None the library looks for a login of its own.
        return HfApi(self.settings.endpoint, token=self.settings.token or False, headers={"User-Agent": USER_AGENT})


def _keep_quiet() -> None:
    """Nothing of the library between the lines of the conversation; what fails becomes a result. And no telemetry: it
    would ask huggingface.co, even with another endpoint, which agents exist, and report us in each request.
    """
    from huggingface_hub import constants  # late: it imports slowly, and most sessions make no call to the Hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_DISABLE_EXPERIMENTAL_WARNING = True  # scheduled jobs
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


class _GivenUp(Exception):
    """Nobody waits for this work any more."""


_given_up: ContextVar[threading.Event | None] = ContextVar("_given_up", default=None)
"""Set inside of our threads: whether the work is still wanted."""


async def _in_thread(work: Callable[[], T]) -> T:
    """The result of blocking work, without waiting for it when cancelled.

    A daemon thread and not asyncio's executor, which is joined when the loop closes: a server that hangs would keep the
    whole process from ending.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # from now on it cannot be cancelled, only be left alone
    given_up = threading.Event()

    def run() -> None:
        _given_up.set(given_up)
        try:
            _watch_requests()
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), name="hub", daemon=True).start()
    try:
        return await asyncio.wrap_future(outcome)
    except asyncio.CancelledError:
        given_up.set()
        raise


def _watch_requests() -> None:
    """Hook into the HTTP client that all of huggingface_hub shares; the hooks mind requests of our threads only.

    It is looked at before every piece of work, because the library replaces its client after a failure to connect.
    """
    from huggingface_hub import get_session  # late: it imports slowly, and most sessions make no call to the Hub

    session = get_session()
    hooks = session.event_hooks
    if _before_request not in hooks["request"]:
        session.event_hooks = {
            "request": [*hooks["request"], _before_request],
            "response": [*hooks["response"], _after_response],
        }


def _before_request(request: httpx.Request) -> None:
    given_up = _given_up.get()
    if given_up is None:
        return
    if given_up.is_set():  # an interrupted upload must not be committed afterwards
        raise _GivenUp
    asked = request.extensions.get("timeout", {})
    bounded = {kind: asked.get(kind) or HTTP_TIMEOUT for kind in ("connect", "read", "write", "pool")}
    request.extensions = {**request.extensions, "timeout": bounded}


def _after_response(response: httpx.Response) -> None:
    if _given_up.get() is not None and response.status_code == 429:
        from huggingface_hub import hf_raise_for_status  # late: it imports slowly, and most sessions make no call to the Hub

        # The library would sleep through a rate limit, for minutes; the model may have better things to do.
        hf_raise_for_status(response)
