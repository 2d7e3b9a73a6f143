"""A real MCP server for the tests: `python mcp_server.py` speaks stdio, `app()` is the same over HTTP."""

from __future__ import annotations

import os
import sys
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ImageContent, TextContent, ToolAnnotations

READS = ToolAnnotations(read_only_hint=True)


def make() -> MCPServer:
    server = MCPServer("test")

    @server.tool(annotations=READS)
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    @server.tool()
    def store(text: str) -> str:
        """Change something."""
        return f"stored {text}"

    @server.tool(annotations=READS)
    def fail() -> str:
        raise ValueError("it does not work")

    @server.tool(annotations=READS)
    def picture() -> list[TextContent | ImageContent]:
        return [
            TextContent(type="text", text="look:"),
            ImageContent(type="image", data="AAAA" * 4, mime_type="image/png"),
        ]

    @server.tool(annotations=READS)
    def environment() -> str:
        return ",".join(sorted(os.environ))

    @server.tool(annotations=READS)
    def die() -> str:
        os._exit(3)

    @server.tool(annotations=READS)
    async def grow(ctx: Context[Any, Any]) -> str:
        """Offer one more tool from now on."""
        server.add_tool(lambda: "new", name="grown", description="A new tool.")
        await ctx.notify_tools_changed()
        return "grown"

    return server


if __name__ == "__main__":
    sys.exit(make().run("stdio"))
