"""What a session and its class say of the agent, in the same words."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from agentsession_operator.api.meta import MAX_NAME, Schema
from session_runtime.wire import ReasoningEffort

BY_NAME: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

Dollars = Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$", max_length=16)]
"""US dollars as text: floating-point numbers do not survive every JSON parser."""

ToolGlob = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_./*?!\[\]-]+$")]
ToolGlobs = Annotated[list[ToolGlob], Field(max_length=128)]


class ToolSelection(Schema):
    """Which tools the model may call, by glob over the tools' names: bash, read, write, edit, list, plan, web_fetch, research,
    hub_search, hub_read, hub_dataset, hub_files, hub_repo, hub_jobs, hub_job, and SERVER__TOOL for those of MCP servers."""

    allow: ToolGlobs | None = None
    """Tools that may be called; unset allows all that the class allows, an empty list allows none."""
    deny: ToolGlobs | None = None
    """Tools that may not be called, even where `allow` names them."""


class SecretKeyRef(Schema):
    """A value in a Secret."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    """A Secret in the session's namespace."""
    key: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    """The key in the Secret."""


class McpHeader(Schema):
    """A header of the requests to an MCP server."""

    name: Annotated[str, Field(max_length=128, pattern="^[A-Za-z0-9_-]+$")]
    """The header's name, for example Authorization."""
    secret_key_ref: SecretKeyRef
    """Where its whole value is, for example the text "Bearer TOKEN"."""


class McpServer(Schema):
    """A server of tools that speaks the Model Context Protocol over streamable HTTP."""

    name: Annotated[str, Field(max_length=32, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    """Its name in the session: a tool `search` of the server `docs` is called docs__search."""
    url: Annotated[str, Field(pattern=r"^https?://[^/@?#]+([/?].*)?$", max_length=2048)]
    """Its address, for example https://mcp.example.com/mcp; a password does not belong here, but into a header."""
    headers: Annotated[list[McpHeader], Field(max_length=16, json_schema_extra=BY_NAME)] = []
    """Headers with secret values, which are sent to this server and to no other."""
    tools: ToolSelection | None = None
    """Which of its tools are offered, by glob over the server's own names for them; unset offers all."""


class ApprovalRule(Schema):
    """What is to happen with the tool calls that it matches."""

    tool: ToolGlob
    """Glob over tool names, for example bash or docs__*."""
    arguments: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] = {}
    """Globs by argument name, all of which must match: text as it is, anything else as JSON. Empty matches every call. A glob
    over a shell command guards against accidents: the same can be said in other words."""
    action: Literal["Allow", "Ask", "Deny"]
    """Allow runs the call, Ask waits for a person's approval, Deny refuses it."""
    reason: Annotated[str, Field(max_length=512)] | None = None
    """Why: for the person who is asked, or for the agent that is refused."""


class Budget(Schema):
    """What a session may use in all. It is checked before each call of the model, so the last one may go over it."""

    tokens: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Tokens, those sent and those written together."""
    cost_usd: Annotated[Dollars | None, Field(alias="costUSD")] = None
    """US dollars as text, for example "2.50": for models by litellm's price table, where one that it does not know costs
    nothing, and for tool calls that have a price."""


class AgentSpec(Schema):
    """The agent: its model and what it may do."""

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Model name as litellm writes it, for example anthropic/claude-sonnet-4-5; unset means the class's default."""
    instructions: Annotated[str, Field(max_length=32_768)] | None = None
    """System message for this session; unset means the class's."""
    max_iterations: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Model calls in one turn before the agent gives up; unset means the class's, or 300."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model shall think before it answers; a model that has no such level gets the next lower one. Unset means
    the class's, or leaves it to the provider."""
    tools: ToolSelection | None = None
    """Narrows the tools that the class offers."""
    mcp_servers: Annotated[list[McpServer], Field(max_length=16, json_schema_extra=BY_NAME)] = []
    """MCP servers whose tools the agent may call, besides those of the class. The class must allow it (allowMCPServers)."""
    approval_policy: Annotated[list[ApprovalRule], Field(max_length=64)] = []
    """Which tool calls run, which wait for a person, and which are refused: the first rule that matches a call decides. The
    class's rules come before the session's. A call that no rule matches waits if it spends, publishes or destroys something,
    or if it is of an MCP server that does not say that it only reads."""
    auto_approve_cost_usd: Annotated[Dollars | None, Field(alias="autoApproveCostUSD")] = None
    """US dollars as text, for example "1.50". A call that would wait for a person runs at once if its price is known and,
    with it, the session has cost no more than this. Unset means the class's; where both are set the smaller one holds, so
    that "0" in the class keeps every question."""
