"""AgentSession: what a person asks for, and its state."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from agentsession_operator.api.agent import AgentSpec, Budget
from agentsession_operator.api.meta import MAX_NAME, Condition, Schema, Timestamp
from agentsession_operator.api.workspace import LostPods, WorkspaceStatus

MAX_PROMPT: Final = 65_536
IMMUTABLE: Final[dict[str, Any]] = {
    "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable; delete the session and apply a new one"}]
}

Phase = Literal[
    "Pending",
    "Queued",
    "Starting",
    "Running",
    "AwaitingApproval",
    "Idle",
    "Suspending",
    "Suspended",
    "Completed",
    "Failed",
]


class Credentials(Schema):
    """The session's API keys."""

    secret_name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    """A Secret in the session's namespace. Its keys, for example OPENAI_API_KEY, ANTHROPIC_API_KEY or HF_TOKEN, become
    environment variables of the agent container only. Commands that the model runs cannot read them."""


class AgentSessionSpec(Schema):
    """The desired session. Only `suspend` can be changed after creation."""

    user: Annotated[str, Field(min_length=1, max_length=256, json_schema_extra=IMMUTABLE)]
    """The owner's user name in the cluster (kubectl auth whoami). Per-user quotas count by it. To create a session for someone
    else, the requester needs the verb `impersonate` on agentsessions."""
    class_name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None = None
    """The session's AgentSessionClass. Unset means the default class."""
    mode: Literal["Interactive", "Task"] = "Interactive"
    """An Interactive session stays until it is shut down or deleted. A Task finishes when the prompt's turn is done."""
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)] | None = None
    """The first input to the agent, at most 65,536 characters. Required when mode is Task."""
    agent: AgentSpec = AgentSpec()
    """The agent: its model and what it may do."""
    credentials: Credentials | None = None
    """The session's API keys. Leave unset for models that need none."""
    budget: Budget = Budget()
    """Limits on the session's total usage. If the class sets a limit too, the smaller one applies. When the budget is used up,
    a Task finishes; an Interactive session stays but makes no further model calls."""
    suspend: bool = False
    """True stops the pod, keeps the conversation and the files, and frees the slot. False resumes the session, through the
    queue. Needs a persistent workspace: with an ephemeral one, a session that has a pod continues. A session without a slot
    leaves the queue."""


SPEC_RULES: Final[list[dict[str, Any]]] = [
    {
        "rule": "self.mode != 'Task' || has(self.prompt)",
        "message": "is required when mode is Task",
        "fieldPath": ".prompt",
        "reason": "FieldValueRequired",
    },
    *(
        {
            "rule": f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
            "message": "is immutable; delete the session and apply a new one",
            "fieldPath": f".{field}",
            "reason": "FieldValueForbidden",
        }
        for field in ("className", "mode", "prompt", "agent", "credentials", "budget")
    ),
]


class Rest(Schema):
    """A suspension that a quota asked for, not the session's user."""

    reason: Literal["Replaced", "QuotaHeld"]
    """Replaced: the slot went to another session, and this one resumes when its spec is changed. QuotaHeld: it resumes by
    itself."""
    generation: int = 0
    """The metadata.generation at that time."""
    successor: str | None = None
    """UID of the session that gets the slot."""


class QueuePlace(Schema):
    """The session's place in the queue."""

    position: int | None = None
    """1 is next. Refreshed at most every 30 s, for the first 50 sessions only."""
    since: str = Timestamp
    """When the session was queued."""


class UsageStatus(Schema):
    """The session's total usage."""

    input_tokens: int = 0
    """Tokens sent to the model."""
    output_tokens: int = 0
    """Tokens written by the model."""
    total_tokens: int = 0
    """Input and output tokens together."""
    cost_usd: Annotated[str, Field(alias="costUSD")] = "0"
    """Cost in US dollars: model calls at the prices of litellm, and tool calls that have a price."""
    llm_calls: int = 0
    """Model calls."""
    tool_calls: int = 0
    """Tool calls."""


class PendingApprovalStatus(Schema):
    """A tool call that waits for approval or, in the middle of the call, for an answer."""

    tool: str
    """The tool's name."""
    tool_call_id: str
    """The call's id. Name it to approve or deny the call."""
    reason: str | None = None
    """Why approval is needed, or what the tool's server asks. The call's arguments and the form to fill in are in the session's
    own API only."""
    question_id: str | None = None
    """Set when the tool's server asks a question in the middle of the call. Name it to answer."""


class AgentSessionStatus(Schema):
    """The session's state. Written by the operator only."""

    phase: Phase = "Pending"
    """The state in one word, for people. Programs should read the conditions."""
    conditions: Annotated[
        list[Condition],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = []
    """Admitted, PodReady, Active, Finished and Ready; Suspended once that was requested; Stalled while the session cannot
    continue by itself."""
    observed_generation: int = 0
    """The metadata.generation that this status was decided on."""
    pod_name: str | None = None
    """The session's pod, in the session's namespace."""
    pod_uid: Annotated[str | None, Field(alias="podUID")] = None
    """UID of the session's pod. Of two pods that claim to be the session's this one counts, and an ephemeral session that had
    one never gets another."""
    model: str | None = None
    """The model that the session runs with, after the class's defaults."""
    workspace: WorkspaceStatus | None = None
    """Set for a session whose workspace is persistent."""
    lost_pods: LostPods | None = None
    """Set where pods of the session were lost, or rejected before anything ran, and are created again."""
    queue: QueuePlace | None = None
    """Set while the session waits for a slot."""
    rest: Rest | None = None
    """Why the operator suspends or finishes the session, if a quota asked for it."""
    start_time: Annotated[str, Timestamp] | None = None
    """When the agent's container first started."""
    finish_time: Annotated[str, Timestamp] | None = None
    """When the session finished."""
    last_activity_time: Annotated[str, Timestamp] | None = None
    """When the agent was last active."""
    usage: UsageStatus | None = None
    """The session's total usage."""
    message_count: int | None = None
    """Number of messages in the conversation."""
    pending_approvals: Annotated[
        list[PendingApprovalStatus],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["toolCallId"]}),
    ] = []
    """Tool calls that wait for approval or for an answer."""
    tool_problems: list[str] = []
    """What is wrong with the session's tool servers, at most 8 sentences. The agent works without their tools meanwhile, and
    connects again by itself."""
    last_message: str | None = None
    """The agent's last message, cut at 4 KiB."""
