"""What crosses a process boundary: names that both sides use, the session that the operator gives to a pod, and the report
that the pod sends back.

The operator imports this module and nothing else of the runtime, so it needs pydantic only (a contract of import-linter).

Both sides are released together, but an operator may be newer than a running pod, so unknown fields are ignored when reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

RUNTIME_MODULE: Final = "session_runtime"
"""What the agent container runs (`python -m`): `session_runtime/__main__.py`."""

WORKSPACE_MODULE: Final = "session_runtime.workspace.server"
"""What the workspace container runs (`python -m`): `session_runtime/workspace/server.py`."""

WORKSPACE_BUNDLE_MODULE: Final = "session_runtime.workspace.bundle"
"""What the init container of a workspace image of the class's own runs (`python -m`): `session_runtime/workspace/bundle.py`."""

REPORT_ROUTE: Final = "/v1/sessions/{namespace}/{name}/report"
"""Path at the operator to which a session's pod PUTs its reports; `session_runtime/reporting/reporter.py` sends them,
`agentsession_operator/reports/http.py` takes them."""

CONFIG_ENV: Final = "AGENTSESSION_CONFIG"
"""Environment variable of the agent container that carries a `SessionConfig` as JSON; see `config_to_environment`."""

CREDENTIAL_PREFIX: Final = "AGENTSESSION_CREDENTIAL_"
"""Prefix under which the keys of the session's Secret arrive in the agent container. It marks the values that are
secrets, and keeps a Secret from setting PATH or LD_PRELOAD of the runtime itself."""

HEADER_PREFIX: Final = "AGENTSESSION_HEADER_"
"""Prefix of the variables that carry the values of MCP servers' headers to the agent container: secrets like the others, but
for one server each, and not for the model's provider."""

OAUTH_PREFIX: Final = "AGENTSESSION_OAUTH_"
"""The same for what the session authenticates with at MCP servers' authorization servers."""

REPORT_TOKEN_PATH: Final = "/var/run/secrets/agentsession.dev/token"  # noqa: S105 - a path, not a token
"""Where the pod's projected service-account token is mounted (agent container only)."""

REPORT_AUDIENCE: Final = "agentsession.dev"
"""Audience of that token: it is worth nothing at the API server."""

STATE_DIR: Final = "/var/lib/agentsession"
"""Mount point of the private volume (agent container only)."""

WORKSPACE_SOCKET: Final = "/run/agentsession/workspace.sock"
"""Unix socket of the workspace server, in an emptyDir that both containers mount."""

SESSION_END: Final = "/run/agentsession-end/ended"
"""File with which the agent tells the workspace server that the session has ended, in an emptyDir that the workspace container
mounts read-only: its commands cannot make it."""

WORKSPACE_DIR: Final = "/workspace"
"""Mount point of the work volume (workspace container only)."""

RUNTIME_PORT: Final = 8080
"""TCP port of the runtime's HTTP server in the pod."""

LAST_MESSAGE_BYTES: Final = 4096
"""`last_message` is cut at this many bytes of UTF-8."""

Mode = Literal["Interactive", "Task"]
Activity = Literal["Processing", "AwaitingApproval", "Idle"]
Outcome = Literal["Completed", "Failed", "BudgetExceeded"]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ToolSelection(_Wire):
    """Which tools the model may call: globs over tool names. A tool is offered when `allow` matches it and `deny` does not."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()


class McpHeader(_Wire):
    """A header of the requests to one MCP server."""

    name: str
    variable: str
    """Environment variable of the agent container that holds its value."""


class McpOAuth(_Wire):
    """How the session authenticates at the authorization server of one MCP server: as a client that is registered there."""

    issuer: str
    client_id: str | None = None
    """None when `client_id_variable` has it."""
    client_id_variable: str | None = None
    client_secret_variable: str | None = None
    private_key_variable: str | None = None
    """Of this and `client_secret_variable` one is set: an environment variable of the agent container."""
    scopes: tuple[str, ...] = ()


class McpServerSettings(_Wire):
    """An MCP server that is spoken to over streamable HTTP."""

    name: str
    url: str
    headers: tuple[McpHeader, ...] = ()
    oauth: McpOAuth | None = None
    tools: ToolSelection = ToolSelection()
    """Globs over the server's own names for its tools."""


class ApprovalRule(_Wire):
    """One line of the approval policy; the first that matches a call decides."""

    tool: str
    arguments: dict[str, str] = Field(default_factory=dict)
    action: Literal["Allow", "Ask", "Deny"]
    reason: str = ""


class Budget(_Wire):
    """What the session may use; None is no limit."""

    tokens: int | None = None
    cost_usd: float | None = None


class ModelRetries(_Wire):
    """How long the agent waits for its model, in seconds."""

    silence_seconds: float = 180.0
    """A model call without content for this long is tried again."""
    unavailable_seconds: float = 900.0
    """How long a call is retried while the model is unavailable."""
    rate_limited_seconds: float = 900.0
    """How long a call is retried while the provider limits the rate of requests."""


class AgentSettings(_Wire):
    """What the agent loop needs to know, after the class's defaults have been applied."""

    model: str
    base_url: str | None = None
    """Address of an OpenAI-compatible server for this model; None means the provider's own, as litellm knows it."""
    images: bool | None = None
    """Whether the model takes images; None means what litellm's table of models says."""
    instructions: str | None = None
    max_iterations: int = 300
    tools: tuple[ToolSelection, ...] = ()
    """The class's selection and the session's: a tool is offered when each of them offers it."""
    web_fetch_networks: tuple[str, ...] = ()
    """Networks (CIDR) that `web_fetch` may reach although they are not public."""
    mcp_servers: tuple[McpServerSettings, ...] = ()
    approval_policy: tuple[ApprovalRule, ...] = ()
    auto_approve_usd: float | None = None
    """A call that would wait for approval runs at once if its price is known and, with it, the session costs no more."""
    reasoning_effort: ReasoningEffort | None = None
    budget: Budget = Budget()
    model_retries: ModelRetries = ModelRetries()


class SessionConfig(_Wire):
    """A session as its pod sees it. Holds no secret: credentials arrive as environment variables of the agent container."""

    uid: str
    namespace: str
    name: str
    user: str
    mode: Mode = "Interactive"
    prompt: str | None = None
    agent: AgentSettings
    token_sha256: str
    """Hex SHA-256 of the bearer token that callers of this pod's API must present."""
    report_url: str | None = None
    """Full URL to which reports are PUT; None sends none (a runtime started by hand)."""
    archive_repository: str | None = None
    """Dataset repository on the Hugging Face Hub that the archive is uploaded to when the session finishes; None for none."""


Count = Annotated[int, Field(ge=0, le=2**53)]
"""What fits into a JSON number everywhere; the API server refuses integers beyond 64 bits."""


class Usage(_Wire):
    """What the session has used since it began."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    cost_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    llm_calls: Count = 0
    tool_calls: Count = 0


class PendingQuestion(_Wire):
    """What a tool's server asks a person in the middle of a call."""

    id: str
    server: str
    message: str
    form: dict[str, object] | None = None
    """JSON Schema of the values that are asked for; left out of reports."""
    url: str | None = None
    """An address that the person is asked to visit."""


class PendingApproval(_Wire):
    """A tool call that waits for a person's decision or, in the middle of the call, for an answer."""

    tool: str
    tool_call_id: str
    arguments: dict[str, object] = Field(default_factory=dict)
    reason: str = ""
    """Why a person is asked."""
    question: PendingQuestion | None = None
    """Set when the call runs and waits for an answer."""


class SessionReport(_Wire):
    """A snapshot of the session, sent on change and every 60 s; the newest one says everything.

    The final one (`outcome` set) is also written to the container's termination message, so that it survives an absent
    operator.
    """

    session_uid: str
    sequence: Count
    """Increases by one with each report of the session. An older report is dropped."""
    activity: Activity
    usage: Usage = Usage()
    message_count: Count = 0
    last_activity_time: datetime | None = None
    last_message: str | None = None
    pending_approvals: tuple[PendingApproval, ...] = ()
    tool_problems: tuple[str, ...] = ()
    """What is wrong with the servers of the session's tools, a sentence each. Empty once the session has ended."""
    budget_used_up: str | None = None
    """Which limit of its budget the session has reached, in words. No further model calls are made."""
    outcome: Outcome | None = None
    outcome_message: str | None = None


_CHUNK_CHARACTERS: Final = 30_000


def config_to_environment(config: SessionConfig) -> dict[str, str]:
    """Environment variables that carry the session to its pod.

    Linux refuses an environment string of 128 KiB, and a prompt can have 400 kB, so the JSON is cut into pieces of at most
    30,000 characters (120 kB of UTF-8): AGENTSESSION_CONFIG, AGENTSESSION_CONFIG_1 and so on. A dollar sign is written as a
    JSON escape, because the kubelet expands `$(NAME)` in values: a prompt could otherwise ask for a credential by name.
    """
    text = config.model_dump_json(exclude_none=True).replace("$", "\\u0024")
    pieces = [text[start : start + _CHUNK_CHARACTERS] for start in range(0, len(text), _CHUNK_CHARACTERS)]
    return {CONFIG_ENV if index == 0 else f"{CONFIG_ENV}_{index}": piece for index, piece in enumerate(pieces)}


def config_from_environment(environment: Mapping[str, str]) -> SessionConfig:
    """The inverse of `config_to_environment`. Raises KeyError without a session, pydantic.ValidationError for a broken one."""
    pieces = [environment[CONFIG_ENV]]
    while (piece := environment.get(f"{CONFIG_ENV}_{len(pieces)}")) is not None:
        pieces.append(piece)
    return SessionConfig.model_validate_json("".join(pieces))
