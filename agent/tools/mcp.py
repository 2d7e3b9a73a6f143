"""Tools of MCP servers (https://modelcontextprotocol.io), through the official client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.redaction import Redactor
from agent.tools.mcp_translation import definition, render, tool_name
from agent.tools.selection import ToolSelection
from agent.tools.tool import DEFAULT_TIMEOUT, Tool, ToolError, cut_output

if TYPE_CHECKING:
    import mcp_types
    from mcp import Client

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 30.0
"""Seconds for connecting, and for listing the tools. A server that `npx` or `uvx` starts may be downloaded first."""

RECONNECT_WAITS = (1.0, 5.0, 15.0, 60.0)
"""Seconds before each try to reconnect; the last one repeats."""

STABLE = 60.0
"""Seconds that a connection must have lasted for its loss to be a new trouble, not more of the old."""

LIST_WAIT = 0.5
"""Seconds between two requests for the list of tools; a server that reports changes without end must not keep us busy."""

LISTEN_WAIT = 30.0
"""Seconds before a stream of changes that has ended is opened again."""

CLOSE_TIMEOUT = 10.0
"""Seconds for saying goodbye; a server on stdio has 2 to end by itself and 2 after SIGTERM."""

MAX_TOOLS = 100
"""Tools that one server can offer. OpenAI takes 128 in all, and all of them go with every request."""

MAX_PAGES = 100
"""Pages of a list of tools that are read; a list without an end must not keep us."""

ERROR_LIMIT = 1_000
"""Characters of an error's text."""


@dataclass(frozen=True)
class McpServer:
    """One server: either a `url` (streamable HTTP) or a `command` (stdio)."""

    name: str
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to this server alone: the client follows no redirect to another host, port or scheme."""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to the few variables that the client passes on (PATH, HOME, …); nothing else is inherited."""
    allow: tuple[str, ...] = ("*",)
    """Globs over the server's own tool names: a tool is offered when `allow` matches it and `deny` does not."""
    deny: tuple[str, ...] = ()
    timeout: float = DEFAULT_TIMEOUT
    """Seconds that one call may take."""

    def __post_init__(self) -> None:
        if (self.url is None) == (not self.command):
            raise ValueError(f"the MCP server {self.name} needs either a url or a command")


class McpConnection:
    """Keeps a connection to a server, and reconnects when it is lost; a source of tools for `ToolRouter`.

    What a server asks of its client in the middle of a call (sampling, elicitation, roots) is declined by the official
    client, as it has nobody to ask.
    """

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.tools: tuple[Tool, ...] = ()
        """What the server offered when it was last asked; kept while it is away, so that the model is not confused."""
        self.problem: str | None = None
        """What is wrong, with the server's name; None while all is well."""
        self._redactor = Redactor((*server.headers.values(), *server.environment.values()))
        """For what an error says of the connection: the HTTP client quotes a header that it will not send."""
        self._client: Client | None = None
        self._tried = asyncio.Event()
        self._look_again = asyncio.Event()
        """Its tools may have changed, or it may have gone: asking for the tools tells."""
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; returns after the first try, whether or not it worked."""
        # A task of its own: the client's cancel scopes must be left by the task that entered them.
        self._task = asyncio.create_task(self._keep())
        await self._tried.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            _, pending = await asyncio.wait({self._task}, timeout=CLOSE_TIMEOUT)
            for task in pending:  # it still waits for a server that does not say goodbye
                task.cancel()

    # -- the connection --------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                async with self._connected() as client:
                    await self._serve(client)
            except Exception as error:
                self._report(f"cannot be reached: {_describe(error)}")
            finally:
                self._client = None
            self._tried.set()
            failures = 1 if loop.time() - began > STABLE else failures + 1
            await asyncio.sleep(RECONNECT_WAITS[min(failures, len(RECONNECT_WAITS)) - 1])

    def _report(self, what: str) -> None:
        problem = self._redactor.text(f"the MCP server {self.server.name} {what}")
        if problem != self.problem:  # not once more with each try to reconnect
            logger.warning(problem)
        self.problem = problem

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        from mcp import Client  # late: it imports slowly, and most sessions have no MCP server

        async with AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                client = Client(await self._transport(stack), message_handler=self._on_message, cache=None)
                await stack.enter_async_context(client)
                await self._list(client)
            self._client = client
            self._tried.set()
            yield client

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if self.server.url is None:
            from mcp import StdioServerParameters  # late: it imports slowly, and most sessions have no MCP server

            program, *rest = self.server.command
            return StdioServerParameters(command=program, args=rest, env=dict(self.server.environment))
        from mcp.client.streamable_http import streamable_http_client  # late: it imports slowly

        from agent.tools import mcp_http  # late: most sessions have no MCP server

        http = await stack.enter_async_context(mcp_http.McpHttpClient(self.server.headers, self._look_again.set))
        return streamable_http_client(self.server.url, http_client=http, max_sse_event_size=mcp_http.MAX_ANSWER)

    async def _serve(self, client: Client) -> None:
        """Keep the list of tools up to date for as long as the server answers."""
        watching = asyncio.create_task(self._watch(client))
        try:
            while True:
                await self._look_again.wait()
                self._look_again.clear()
                await self._list(client)
                await asyncio.sleep(LIST_WAIT)
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self, client: Client) -> None:
        """Ask a server of the 2026-07-28 protocol to report changes; older ones do so by themselves.

        Its stream ends when the server goes, but also when something between us cuts what is silent for long.
        """
        from mcp import MCPError  # late: it imports slowly, and most sessions have no MCP server
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
        from mcp_types import METHOD_NOT_FOUND

        while True:
            try:
                async with client.listen(tools_list_changed=True) as events:
                    self._look_again.set()  # there is no replay of what changed before
                    if not events.honored.tools_list_changed:
                        return
                    async for _ in events:
                        self._look_again.set()
            except (ListenNotSupportedError, SubscriptionLost, MCPError) as error:
                if isinstance(error, ListenNotSupportedError) or getattr(error, "code", None) == METHOD_NOT_FOUND:
                    return
            self._look_again.set()
            await asyncio.sleep(LISTEN_WAIT)

    async def _on_message(self, message: object) -> None:
        import mcp_types  # late: it imports slowly, and most sessions have no MCP server

        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._look_again.set()

    # -- the tools -------------------------------------------------------------------------------------------------

    async def _list(self, client: Client) -> None:
        """Ask for the tools. Raises when there is no server any more that can be asked."""
        found: dict[str, mcp_types.Tool] = {}
        selection = ToolSelection(self.server.allow, self.server.deny)
        cursor: str | None = None
        async with asyncio.timeout(CONNECT_TIMEOUT):
            for _ in range(MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                for tool in page.tools:
                    if selection.offers(tool.name):
                        found.setdefault(tool_name(self.server.name, tool.name), tool)
                cursor = page.next_cursor
                if cursor is None:
                    break
        self.tools = tuple(self._tool(name, tool) for name, tool in list(found.items())[:MAX_TOOLS])
        if len(found) > MAX_TOOLS:
            self._report(f"has {len(found)} tools, and the first {MAX_TOOLS} are offered; allow only those that are needed")
        else:
            self.problem = None

    def _tool(self, name: str, tool: mcp_types.Tool) -> Tool:
        read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
        consent = f"the MCP server {self.server.name} does not say that {tool.name} only reads"
        description, parameters = definition(tool)

        async def call(arguments: dict[str, Any]) -> str:
            return await self._call(tool.name, arguments)

        return Tool(
            name=name,
            description=description,
            parameters=parameters,
            call=call,
            timeout=self.server.timeout,
            read_only=read_only,
            needs_consent=lambda arguments: None if read_only else consent,
        )

    async def _call(self, name: str, arguments: dict[str, Any]) -> str:
        from mcp import MCPError  # late: it imports slowly, and most sessions have no MCP server

        client = self._client
        if client is None:
            raise ToolError(self.problem or f"the MCP server {self.server.name} is not connected")
        try:
            result = await client.call_tool(name, arguments)
        except asyncio.CancelledError:
            self._look_again.set()  # it took too long, or somebody interrupted it: perhaps the server hangs
            raise
        except (MCPError, RuntimeError, ValueError) as error:
            # The server answered with an error or with what is no answer, or there is no server any more.
            self._look_again.set()
            raise ToolError(f"the MCP server {self.server.name} failed: {_describe(error)}") from error
        text = render(result.content, result.structured_content)
        if result.is_error:
            raise ToolError(text)
        return text


def _describe(error: BaseException) -> str:
    """The first real error in what may be a group of them."""
    from mcp import MCPError  # late: it imports slowly, and most sessions have no MCP server

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT:g} s"
    return cut_output(str(error) if isinstance(error, MCPError) else f"{type(error).__name__}: {error}", ERROR_LIMIT)
