"""A real MCP server for the tests: `python mcp_server.py` speaks stdio, `make()` is what it serves.

With the argument `legacy` it knows no protocol version from 2026 on, like most servers today.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Literal

import anyio
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import (
    METHOD_NOT_FOUND,
    CallToolResult,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
    ErrorData,
    ImageContent,
    InputRequiredResult,
    JSONRPCError,
    JSONRPCRequest,
    SamplingMessage,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAAAAADRSSBWAAAAC0lEQVR4nGNoaAAAAYMBARg1IhUAAAAASUVORK5CYII="
"""`support.agent.pictures.image()`, which a program of its own cannot import."""

READS = ToolAnnotations(read_only_hint=True)


class Seat(BaseModel):
    seat: Literal["window", "aisle"] = "aisle"


def make() -> MCPServer:
    server = MCPServer("test", log_level="CRITICAL")
    _add_simple_tools(server)
    _add_demanding_tools(server)
    return server


def _add_simple_tools(server: MCPServer) -> None:
    @server.tool(annotations=READS)
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    @server.tool()
    def store(text: str) -> str:
        """Change something."""
        return f"stored {text}"

    @server.tool()
    def authorization(ctx: Context[Any, Any]) -> str:
        """What the caller has proved itself with."""
        return (ctx.headers or {}).get("authorization", "nothing")

    @server.tool(annotations=READS)
    def fail() -> str:
        raise ValueError("it does not work")

    @server.tool(annotations=READS)
    def picture() -> list[TextContent | ImageContent]:
        return [
            TextContent(type="text", text="look:"),
            ImageContent(type="image", data=PICTURE, mime_type="image/png"),
        ]

    @server.tool(annotations=READS)
    def rows() -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text="2 rows")], structured_content={"rows": [1, 2]})

    @server.tool(annotations=READS)
    def environment() -> str:
        return ",".join(sorted(os.environ))

    @server.tool(annotations=READS)
    async def grow(ctx: Context[Any, Any]) -> str:
        """Offer one more tool from now on."""
        server.add_tool(lambda: "new", name="grown", description="A new tool.")
        await ctx.notify_tools_changed()  # to those who listen: protocols from 2026 on
        await ctx.request_context.session.send_tool_list_changed()  # to all others
        return "grown"


def _add_demanding_tools(server: MCPServer) -> None:
    @server.tool(annotations=READS)
    def process() -> str:
        return str(os.getpid())

    @server.tool(annotations=READS)
    def die() -> str:
        os._exit(3)

    @server.tool(annotations=READS)
    async def wait() -> str:
        """Wait indefinitely, and keep serving meanwhile."""
        await anyio.sleep_forever()
        return ""

    @server.tool(annotations=READS)
    async def hang() -> str:
        """Serve nobody any more."""
        while True:
            time.sleep(1)  # noqa: ASYNC251 - that is the point

    @server.tool(annotations=READS)
    async def seat(ctx: Context[Any, Any], where: str) -> CallToolResult | InputRequiredResult:
        """Ask the person for a seat."""
        form = ElicitRequestFormParams(message=f"Which seat to {where}?", requested_schema=Seat.model_json_schema())
        answer = await _asked(ctx, form)
        if isinstance(answer, InputRequiredResult):
            return answer
        return CallToolResult(content=[TextContent(type="text", text=f"{where}: {answer.action} {answer.content}")])

    @server.tool(annotations=READS)
    async def visit(ctx: Context[Any, Any]) -> CallToolResult | InputRequiredResult:
        """Ask the person to visit an address."""
        answer = await _asked(
            ctx, ElicitRequestURLParams(message="Pay there.", url="https://pay.example/1", elicitation_id="1")
        )
        if isinstance(answer, InputRequiredResult):
            return answer
        return CallToolResult(content=[TextContent(type="text", text=answer.action)])

    @server.tool(annotations=READS)
    async def think() -> InputRequiredResult:
        """Have the client's model think."""
        message = SamplingMessage(role="user", content=TextContent(type="text", text="think"))
        request = CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=10))
        return InputRequiredResult(input_requests={"thought": request})


async def _asked(ctx: Context[Any, Any], params: ElicitRequestParams) -> ElicitResult | InputRequiredResult:
    """The person's answer: in the protocol of 2026 it comes with the call made once more."""
    if ctx.request_context.protocol_version >= "2026":
        answer = (ctx.input_responses or {}).get("question")
        return (
            answer
            if isinstance(answer, ElicitResult)
            else InputRequiredResult(input_requests={"question": ElicitRequest(params=params)})
        )
    session = ctx.request_context.session
    if isinstance(params, ElicitRequestURLParams):
        return await session.elicit_url(params.message, params.url, "1", ctx.request_id)
    return await session.elicit_form(params.message, params.requested_schema, ctx.request_id)


async def serve_legacy() -> None:
    """What the client asks first is answered as by a server that does not know the question."""
    server = make()._lowlevel_server
    options = server.create_initialization_options(NotificationOptions(tools_changed=True))
    async with stdio_server() as (read, write):
        first = await read.receive()
        assert isinstance(first, SessionMessage)
        assert isinstance(first.message, JSONRPCRequest)
        assert first.message.method == "server/discover"
        unknown = ErrorData(code=METHOD_NOT_FOUND, message="Method not found")
        await write.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=first.message.id, error=unknown)))
        await server.run(read, write, options)


if __name__ == "__main__":
    sys.exit(anyio.run(serve_legacy) if sys.argv[1:] == ["legacy"] else make().run("stdio"))
