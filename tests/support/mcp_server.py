"""An MCP server on port 8080: one tool says what the caller has proved itself with, another one asks the person something. Runs
in the runtime's image."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    TextContent,
    ToolAnnotations,
)

FORM = {"type": "object", "properties": {"seat": {"type": "string", "enum": ["window", "aisle"], "default": "aisle"}}}

server = MCPServer("notes")


@server.tool()
def authorization(ctx: Context[Any, Any]) -> str:
    """What the caller has proved itself with."""
    return (ctx.headers or {}).get("authorization", "nothing")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def seat(ctx: Context[Any, Any]) -> CallToolResult | InputRequiredResult:
    """Which seat the person wants."""
    answer = (ctx.input_responses or {}).get("seat")
    if not isinstance(answer, ElicitResult):
        question = ElicitRequestFormParams(message="Which seat?", requested_schema=FORM)
        return InputRequiredResult(input_requests={"seat": ElicitRequest(params=question)})
    return CallToolResult(content=[TextContent(type="text", text=f"{answer.action} {answer.content}")])


if __name__ == "__main__":
    server.run("streamable-http", host="0.0.0.0", port=8080)
