"""The settings of the agent that sessions and classes share."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from agentsession_operator.api.meta import MAX_NAME, Schema
from session_runtime.wire import ReasoningEffort

BY_NAME: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

Dollars = Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$", max_length=16)]
"""US dollars as text: floating-point numbers do not survive every JSON parser."""

ToolGlob = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_./*?!\[\]-]+$")]
ToolGlobs = Annotated[list[ToolGlob], Field(max_length=128)]


class ToolSelection(Schema):
    """The tools that the model may call, as globs over tool names: bash, read, write, edit, list, plan, web_fetch, research,
    hub_search, hub_read, hub_dataset, hub_files, hub_repo, hub_jobs, hub_job, and SERVER__TOOL for tools of MCP servers."""

    allow: ToolGlobs | None = None
    """Allowed tools. Unset allows everything that the class allows; an empty list allows nothing."""
    deny: ToolGlobs | None = None
    """Denied tools. `deny` overrides `allow`."""


class SecretKeyRef(Schema):
    """A value in a Secret."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    """A Secret in the session's namespace."""
    key: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    """The key in the Secret."""


class McpHeader(Schema):
    """An HTTP header that is sent to an MCP server."""

    name: Annotated[str, Field(max_length=128, pattern="^[A-Za-z0-9_-]+$")]
    """The header's name, for example Authorization."""
    secret_key_ref: SecretKeyRef
    """The Secret key with the complete value, for example the text "Bearer TOKEN"."""


class TextOrSecretKey(Schema):
    """A value, as text or in a Secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "has(self.value) != has(self.secretKeyRef)", "message": "needs either a value or a secretKeyRef"}
            ]
        }
    )

    value: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """The value itself."""
    secret_key_ref: SecretKeyRef | None = None
    """The Secret key with the value."""


class SecretValue(Schema):
    """A value in a Secret."""

    secret_key_ref: SecretKeyRef
    """The Secret key with the value."""


class McpOAuth(Schema):
    """The OAuth client that the session acts as: one that is registered at the server's authorization server and gets tokens
    for itself (client credentials). Nobody signs in."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.clientSecret) != has(self.privateKey)",
                    "message": "needs either a clientSecret or a privateKey",
                }
            ]
        }
    )

    issuer: Annotated[str, Field(pattern=r"^https?://[^/@?#]+(/[^?#]*)?$", max_length=2048)]
    """The authorization server's issuer URL, for example https://login.example.com. The credentials are sent to this server
    only, no matter which one the MCP server names."""
    client_id: Annotated[TextOrSecretKey, Field(alias="clientID")]
    """The client's id."""
    client_secret: SecretValue | None = None
    """The client's secret."""
    private_key: SecretValue | None = None
    """The client's private key as PEM (EC, RSA or Ed25519), in place of a secret. The client authenticates with signatures."""
    scopes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!#-\[\]-~]+$")]],
        Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []
    """Scopes to request. Unset means those that the MCP server asks for."""


class McpServer(Schema):
    """A tool server that speaks the Model Context Protocol over streamable HTTP."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.oauth) || !has(self.headers) || "
                    "!self.headers.exists(h, h.name.lowerAscii() == 'authorization')",
                    "message": "with oauth, the Authorization header carries the access token; remove it from headers",
                }
            ]
        }
    )

    name: Annotated[str, Field(max_length=32, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    """The server's name in the session. The tool `search` of the server `docs` is called docs__search."""
    url: Annotated[str, Field(pattern=r"^https?://[^/@?#]+([/?].*)?$", max_length=2048)]
    """The server's URL, for example https://mcp.example.com/mcp. Put passwords in a header, not here."""
    headers: Annotated[list[McpHeader], Field(max_length=16, json_schema_extra=BY_NAME)] = []
    """Headers with secret values. They are sent to this server only."""
    oauth: McpOAuth | None = None
    """How the session gets access tokens, if the server asks for them (OAuth 2.1). Tokens are sent to this server only."""
    tools: ToolSelection | None = None
    """The server's tools that the agent may use, as globs over the server's own tool names. Unset allows all."""


class ApprovalRule(Schema):
    """Decides what happens to the tool calls that it matches."""

    tool: ToolGlob
    """Glob over tool names, for example bash or docs__*."""
    arguments: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] = {}
    """Globs by argument name. All must match: text is matched as it is, other values as JSON in which letters and line
    breaks are not escaped. Empty matches every call. A glob over a shell command prevents accidents, not intent: the same
    command can be written in other ways."""
    action: Literal["Allow", "Ask", "Deny"]
    """Allow runs the call. Ask waits for a person's approval. Deny refuses the call."""
    reason: Annotated[str, Field(max_length=512)] | None = None
    """The reason, shown to the person who approves, or to the agent when the call is denied."""


class Budget(Schema):
    """Limits on the total usage of a session. Checked before each model call, so the last call can exceed them."""

    tokens: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Input and output tokens together."""
    cost_usd: Annotated[Dollars | None, Field(alias="costUSD")] = None
    """US dollars as text, for example "2.50". Counts model calls at the prices of litellm (a model without a price there
    counts as free) and tool calls that have a price."""


class AgentSpec(Schema):
    """The agent: its model and what it may do."""

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The model's name in litellm, for example anthropic/claude-sonnet-4-5. Unset means the class's default."""
    instructions: Annotated[str, Field(max_length=32_768)] | None = None
    """The system message. Unset means the class's."""
    max_iterations: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Maximum model calls in one turn. Unset means the class's, or 300."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model thinks before it answers. A model without that level uses the next lower one. Unset means the
    class's, or the provider's default."""
    tools: ToolSelection | None = None
    """Restricts the tools of the class further."""
    mcp_servers: Annotated[list[McpServer], Field(max_length=16, json_schema_extra=BY_NAME)] = []
    """MCP servers in addition to those of the class. The class must allow them (allowMCPServers: true)."""
    approval_policy: Annotated[list[ApprovalRule], Field(max_length=64)] = []
    """Rules for tool calls: run, wait for approval, or refuse. The first rule that matches decides; the class's rules come
    before the session's. A call without a matching rule waits for approval if it spends, publishes or destroys something, or
    if it calls an MCP tool that is not declared read-only."""
    auto_approve_cost_usd: Annotated[Dollars | None, Field(alias="autoApproveCostUSD")] = None
    """US dollars as text, for example "1.50". A call that would wait for approval runs at once if its price is known and the
    session's cost including that price is at most this amount. Unset means the class's. If both are set, the smaller one
    applies, so "0" in the class requires approval for every such call."""
