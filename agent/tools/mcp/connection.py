"""Tools of MCP servers (https://modelcontextprotocol.io), through the official client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.redaction import Redactor
from agent.tools.mcp import wire
from agent.tools.mcp.elicitation import AskingCalls
from agent.tools.mcp.errors import describe, is_lost_session, within
from agent.tools.mcp.server import McpServer
from agent.tools.mcp.translation import definition, render, tool_name
from agent.tools.selection import ToolSelection
from agent.tools.tool import Tool, ToolError, ToolResult

if TYPE_CHECKING:
    import mcp_types
    from httpx2 import Auth
    from mcp import Client

    from agent.tools.mcp.stdio import StdioServer

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 30.0
"""Seconds for connecting again, and for listing the tools. The first time has `McpServer.start_timeout`."""

OPEN_WAIT = 10.0
"""Seconds that a session waits for a server when it opens; a server that needs longer starts in the background."""

CALL_WAIT = 10.0
"""Seconds that a call waits for a server that is away."""

WANTED_WAIT = 0.2
"""Seconds before each try to reconnect while a call waits."""

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

TOKENS_KEPT = 16
"""Access tokens that are masked; the oldest of more are no longer valid."""

MAX_PAGES = 100
"""Pages of a list of tools that are read; a list without an end must not keep us."""


class McpConnection:
    """Keeps a connection to a server, and reconnects when it is lost; a source of tools for `ToolRouter`.

    What a server asks of the person in the middle of a call (elicitation) is put to them through that call. What it asks of a
    model (sampling, roots) is declined by the official client.
    """

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.tools: tuple[Tool, ...] = ()
        """What the server offered when it was last asked; kept while it is away, so that the model is not confused."""
        self.problem: str | None = None
        """What is wrong, with the server's name; None while all is well."""
        self.ready = False
        """Whether its tools have been listed, if only once."""
        self.on_change: Callable[[], None] = lambda: None
        self._redactor = Redactor(server.secrets)
        """For what an error says of the connection: the HTTP client quotes a header that it will not send."""
        self._tokens: deque[str] = deque(maxlen=TOKENS_KEPT)
        self._issued = Redactor()
        """For what the server says: it may show the access token that it got, which nobody but the connection knows."""
        self._auth: Auth | None = None
        """Kept over connections, with its tokens."""
        self._calls = AskingCalls()
        self._client: Client | None = None
        """None while there is no connection that is known to work."""
        self._live = asyncio.Event()
        """There is a client."""
        self._wanted = asyncio.Event()
        self._waiting = 0
        """Calls that wait for a client."""
        self._process: StdioServer | None = None
        """The latest one; None without a command, or before the first."""
        self._tried = asyncio.Event()
        self._look_again = asyncio.Event()
        """Its tools may have changed, or it may have gone: asking for the tools tells."""
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Connect; returns after the first try, whether or not it worked, or after OPEN_WAIT while the try continues."""
        # A task of its own: the client's cancel scopes must be left by the task that entered them.
        self._task = asyncio.create_task(self._keep())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_WAIT):
                await self._tried.wait()
        if not self._tried.is_set():
            self._report("is still starting; its tools are offered as soon as it answers")

    async def close(self) -> None:
        self._closing = True
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
            connected = False
            try:
                async with self._connected() as client:
                    connected = True
                    await self._serve(client)
            except Exception as error:
                self._set_client(None)
                if self._closing:
                    return  # an answer that came late: the official client's error took the place of the cancellation
                if connected and is_lost_session(error):
                    await asyncio.sleep(WANTED_WAIT)
                    continue  # the server is there, and only its session is gone
                self._report(f"cannot be reached: {await self._described(error)}")
            finally:
                self._set_client(None)
            self._tried.set()
            failures = 1 if loop.time() - began > STABLE else failures + 1
            await self._pause(RECONNECT_WAITS[min(failures, len(RECONNECT_WAITS)) - 1])

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try: not for long once a call waits for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
                await asyncio.sleep(WANTED_WAIT)

    def _set_client(self, client: Client | None) -> None:
        self._client = client
        if client is None:
            self._live.clear()
        else:
            self._live.set()

    async def _live_client(self) -> Client:
        """A client; while there is none, the tries to reconnect come sooner. Raises ToolError after CALL_WAIT."""
        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(CALL_WAIT):
                while self._client is None:
                    await self._live.wait()
            return self._client
        except TimeoutError:
            raise ToolError(self.problem or f"the MCP server {self.server.name} is not connected") from None
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()

    def _report(self, what: str | None) -> None:
        """Note what is wrong with the server, or that nothing is."""
        problem = None if what is None else self._redactor.text(f"the MCP server {self.server.name} {what}")
        if problem is not None and problem != self.problem:  # not once more with each try to reconnect
            logger.warning(problem)
        changed, self.problem = problem != self.problem, problem
        if changed:
            self.on_change()

    async def _described(self, error: BaseException) -> str:
        """The error, and the last words of the process if it exited or never answered."""
        said = describe(error)
        if self._process is not None and (self._client is None or self._process.exited):
            words = await self._process.last_words()
            said = f"{said}. {words}" if words else said
        return said

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        from mcp import Client  # late: it imports slowly, and most sessions have no MCP server

        async with AsyncExitStack() as stack:
            async with within(CONNECT_TIMEOUT if self.ready else self.server.start_timeout):
                client = Client(
                    await self._transport(stack),
                    message_handler=self._on_message,
                    elicitation_callback=self._elicit,
                    cache=None,
                )
                await stack.enter_async_context(client)
                await self._list(client)
            self._set_client(client)
            self._tried.set()
            yield client

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if self.server.url is None:
            from agent.tools.mcp.stdio import StdioServer  # late: most sessions have no MCP server

            self._process = StdioServer(self.server)
            return self._process.connect()
        from mcp.client.streamable_http import streamable_http_client  # late: it imports slowly

        from agent.tools.mcp import http as mcp_http  # late: most sessions have no MCP server

        if self.server.oauth is not None and self._auth is None:
            from agent.tools.mcp.oauth import ClientAuth  # late: few servers ask for it

            self._auth = ClientAuth(self.server.url, self.server.oauth, self._keep_secret)
        client = mcp_http.McpHttpClient(self.server.headers, self._look_again.set, self._auth)
        http = await stack.enter_async_context(client)
        return streamable_http_client(self.server.url, http_client=http, max_sse_event_size=wire.MAX_ANSWER)

    async def _serve(self, client: Client) -> None:
        """Keep the list of tools up to date for as long as the server answers."""
        watching = asyncio.create_task(self._watch(client))
        try:
            while True:
                await self._look_again.wait()
                self._look_again.clear()
                await self._list(client)
                self._set_client(client)  # a call may have doubted it
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
        left_out = 0
        troubles: list[str] = []
        async with within(CONNECT_TIMEOUT):
            async for page in self._pages(client, troubles.append):
                left_out += (page.meta or {}).get(wire.LEFT_OUT, 0)
                for tool in page.tools:
                    if selection.offers(tool.name):
                        found.setdefault(tool_name(self.server.name, tool.name), tool)
        before = [tool.definition() for tool in self.tools]
        self.tools = tuple(self._tool(name, tool) for name, tool in list(found.items())[:MAX_TOOLS])
        if left_out:
            troubles.append(f"lists {left_out} entries that are no tools; they are left out")
        if len(found) > MAX_TOOLS:
            troubles.append(f"has {len(found)} tools, and the first {MAX_TOOLS} are offered; allow only those that are needed")
        self.ready = True
        self._report("; it ".join(troubles) if troubles else None)
        if before != [tool.definition() for tool in self.tools]:
            self.on_change()

    async def _pages(self, client: Client, report: Callable[[str], None]) -> AsyncIterator[mcp_types.ListToolsResult]:
        """The pages of the list of tools, up to the first that the server refuses to give."""
        from mcp import MCPError  # late: it imports slowly, and most sessions have no MCP server
        from mcp_types import CONNECTION_CLOSED

        cursor: str | None = None
        seen: set[str] = set()
        for number in range(MAX_PAGES):
            try:
                page = await client.list_tools(cursor=cursor)
            except MCPError as error:
                if number == 0 or error.code == CONNECTION_CLOSED or error.data == wire.SESSION_LOST:
                    raise
                report(f"does not list all its tools, and those of the first {number} pages are offered: {describe(error)}")
                return
            yield page
            cursor = page.next_cursor
            if not cursor or cursor in seen:
                return
            seen.add(cursor)

    def _tool(self, name: str, tool: mcp_types.Tool) -> Tool:
        read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
        consent = f"the MCP server {self.server.name} does not say that {tool.name} only reads"
        description, parameters = definition(tool)

        async def call(arguments: dict[str, Any]) -> ToolResult:
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

    async def _call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        with self._calls.running():
            return await self._answer_of(name, arguments)

    async def _answer_of(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        from mcp import MCPError  # late: it imports slowly, and most sessions have no MCP server

        try:
            client = await self._live_client()
            try:
                result = await client.call_tool(name, wire.clean(arguments))
            except MCPError as error:
                if error.data not in (wire.SESSION_LOST, wire.NOT_SENT):
                    raise
                # The server has not seen the call, so it can be made again.
                if self._client is client:
                    self._set_client(None)
                self._look_again.set()
                client = await self._live_client()
                result = await client.call_tool(name, wire.clean(arguments))
        except asyncio.CancelledError:
            self._look_again.set()  # it took too long, or somebody interrupted it: perhaps the server hangs
            raise
        except (MCPError, RuntimeError, ValueError) as error:
            # The server answered with an error or with what is no answer, or there is no server any more.
            self._look_again.set()
            said = self._redactor.text(await self._described(error))
            raise ToolError(f"the MCP server {self.server.name} failed: {said}") from error
        # In a thread: images have megabytes to be decoded.
        found = await asyncio.to_thread(render, result.content, result.structured_content, bool(result.is_error))
        return replace(found, output=self._issued.text(found.output))

    async def _elicit(
        self, context: object, params: mcp_types.ElicitRequestParams
    ) -> mcp_types.ElicitResult | mcp_types.ErrorData:
        return await self._calls.elicit(self.server.name, params, self._issued)

    def _keep_secret(self, token: str) -> None:
        """An access token was issued: from now on it is masked in all that comes of the connection."""
        self._tokens.append(token)
        self._issued = Redactor(self._tokens)
        self._redactor = Redactor((*self.server.secrets, *self._tokens))
