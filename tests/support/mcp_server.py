"""An MCP server on port 8080 whose one tool says what the caller has proved itself with. Runs in the runtime's image."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("notes")


@server.tool()
def authorization(ctx: Context[Any, Any]) -> str:
    """What the caller has proved itself with."""
    return (ctx.headers or {}).get("authorization", "nothing")


if __name__ == "__main__":
    server.run("streamable-http", host="0.0.0.0", port=8080)
