"""Tools of MCP servers (https://modelcontextprotocol.io), through the official client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from agent.tools.tool import Tool, ToolError

if TYPE_CHECKING:
    import mcp_types
    from mcp import Client

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 15.0
"""Seconds for connecting and listing the tools."""

RECONNECT_WAITS = (1.0, 5.0, 15.0, 60.0)
"""Seconds before each try to reconnect; the last one repeats."""


@dataclass(frozen=True)
class McpServer:
    """One server: either a `url` (streamable HTTP) or a `command` (stdio)."""

    name: str
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to this server alone, and to no place that it redirects to."""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to the few variables that the client passes on (PATH, HOME, …); nothing else is inherited."""
    allow: tuple[str, ...] = ("*",)
    """Globs over the server's own tool names: a tool is offered when `allow` matches it and `deny` does not."""
    deny: tuple[str, ...] = ()


class McpConnection:
    """Keeps a connection to a server, and reconnects when it is lost; a source of tools for `ToolRouter`."""

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.tools: tuple[Tool, ...] = ()
        """What the server offered when it was last asked; kept while it is away, so that the model is not confused."""
        self.problem: str | None = None
        """Why there is no connection, with the server's name; None while there is one."""
        self._client: Client | None = None
        self._tried = asyncio.Event()
        self._lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; returns after the first try, whether or not it worked."""
        # A task of its own: the client's cancel scopes must be left by the task that entered them.
        self._task = asyncio.create_task(self._keep())
        await self._tried.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # -- the connection --------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                async with self._connected() as client:
                    failures = 0
                    await self._serve(client)
                self._report("the connection was lost")
            except Exception as error:
                self._report(_describe(error))
            finally:
                self._client = None
            self._tried.set()
            await asyncio.sleep(RECONNECT_WAITS[min(failures, len(RECONNECT_WAITS) - 1)])
            failures += 1

    def _report(self, problem: str) -> None:
        self.problem = f"the MCP server {self.server.name} cannot be reached: {problem}"
        logger.warning(self.problem)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        from mcp import Client

        async with AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                client = Client(await self._transport(stack), message_handler=self._on_message)
                await stack.enter_async_context(client)
                await self._list(client)
            self._lost.clear()
            self._client, self.problem = client, None
            self._tried.set()
            yield client

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if self.server.url is None:
            from mcp import StdioServerParameters

            program, *rest = self.server.command
            return StdioServerParameters(command=program, args=rest, env=dict(self.server.environment))
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        timeout = httpx2.Timeout(30, read=300)
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=dict(self.server.headers), timeout=timeout))
        return streamable_http_client(self.server.url, http_client=http)

    async def _serve(self, client: Client) -> None:
        """Keep the list of tools up to date until the connection is lost."""
        watching = asyncio.create_task(self._watch(client))
        lost = asyncio.create_task(self._lost.wait())
        try:
            while not lost.done():
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({lost, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if self._changed.is_set():
                    self._changed.clear()
                    await self._list(client)
        finally:
            watching.cancel()
            lost.cancel()
            await asyncio.wait({watching, lost})

    async def _watch(self, client: Client) -> None:
        """Ask a server of the 2026-07-28 protocol to tell of changes; older ones do so by themselves."""
        with contextlib.suppress(Exception):
            async with client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._changed.set()

    async def _on_message(self, message: object) -> None:
        import mcp_types

        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._changed.set()

    # -- the tools -------------------------------------------------------------------------------------------------

    async def _list(self, client: Client) -> None:
        found: list[mcp_types.Tool] = []
        cursor: str | None = None
        while True:
            page = await client.list_tools(cursor=cursor)
            found.extend(page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        self.tools = tuple(self._tool(tool) for tool in found if self._offers(tool.name))

    def _offers(self, name: str) -> bool:
        return any(fnmatchcase(name, glob) for glob in self.server.allow) and not any(
            fnmatchcase(name, glob) for glob in self.server.deny
        )

    def _tool(self, tool: mcp_types.Tool) -> Tool:
        read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
        consent = f"the MCP server {self.server.name} does not say that {tool.name} only reads"

        async def call(arguments: dict[str, Any]) -> str:
            return await self._call(tool.name, arguments)

        return Tool(
            name=tool_name(self.server.name, tool.name),
            description=tool.description or tool.name,
            parameters=tool.input_schema,
            call=call,
            read_only=read_only,
            needs_consent=lambda arguments: None if read_only else consent,
        )

    async def _call(self, name: str, arguments: dict[str, Any]) -> str:
        from mcp import MCPError

        client = self._client
        if client is None:
            raise ToolError(self.problem or f"the MCP server {self.server.name} is not connected")
        try:
            result = await client.call_tool(name, arguments)
        except MCPError as error:
            # The server answered with an error, or there is no server any more: asking again for its tools tells.
            await self._check(client)
            raise ToolError(f"The MCP server {self.server.name} failed: {error.message}") from error
        text = render(result.content, result.structured_content)
        if result.is_error:
            raise ToolError(text)
        return text

    async def _check(self, client: Client) -> None:
        """Give up a connection on which nothing can be asked any more."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await client.list_tools(cache_mode="bypass")
        except Exception:
            self._lost.set()


def tool_name(server: str, tool: str) -> str:
    """`server__tool`, with the characters and the length that the providers accept."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{server}__{tool}")[:64]


def render(content: Sequence[mcp_types.ContentBlock], structured: object = None) -> str:
    """A result as text; what is no text is described. Structured content counts when there is no text beside it."""
    parts = [_render_block(block) for block in content]
    if not parts and structured is not None:
        parts = [json.dumps(structured, ensure_ascii=False)]
    return "\n".join(parts) or "[no output]"


def _render_block(block: mcp_types.ContentBlock) -> str:
    if block.type == "text":
        return block.text
    if block.type == "image" or block.type == "audio":
        return f"[{block.type}, {block.mime_type}, {len(block.data) * 3 // 4} bytes]"
    if block.type == "resource_link":
        return f"[resource {block.uri}: {block.description or block.name}]"
    text = getattr(block.resource, "text", None)
    return text if isinstance(text, str) else f"[resource {block.resource.uri}, not text]"


def _describe(error: BaseException) -> str:
    """The first real error in what may be a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT:g} s"
    return f"{type(error).__name__}: {error}"
