"""AgentSession: what a person asks for, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from agentsession_operator.api.agent import AgentSpec, Budget
from agentsession_operator.api.meta import MAX_NAME, Condition, Schema, Timestamp
from agentsession_operator.api.workspace import LostPods, WorkspaceStatus

MAX_PROMPT: Final = 100_000
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
    """Where the session's keys are."""

    secret_name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    """A Secret in the session's namespace. Its keys become environment variables of the agent container, which talks to the
    model, and of no other: what the model runs cannot read them. For example OPENAI_API_KEY, ANTHROPIC_API_KEY or HF_TOKEN."""


class AgentSessionSpec(Schema):
    """What is asked for. Only `suspend` can be changed after the session has been created."""

    user: Annotated[str, Field(min_length=1, max_length=256, json_schema_extra=IMMUTABLE)]
    """Whose session it is, as the cluster knows the person (kubectl auth whoami). Quotas count by it. To create a session for
    someone else, the requester needs the verb `impersonate` on agentsessions."""
    class_name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None = None
    """The AgentSessionClass, which says what the platform team allows; unset means the default class."""
    mode: Literal["Interactive", "Task"] = "Interactive"
    """Interactive stays until it is shut down or deleted; Task finishes when the prompt has been worked on."""
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)] | None = None
    """The first input to the agent, at most 100,000 characters."""
    agent: AgentSpec = AgentSpec()
    """The agent: its model and what it may do."""
    credentials: Credentials | None = None
    """Where the session's keys are; unset for models that need none."""
    budget: Budget = Budget()
    """What the session may use in all; where the class sets a limit too, the smaller one holds. A Task whose budget is used up
    is finished; an Interactive session stays, and answers nothing more."""
    suspend: bool = False
    """True stops the pod, keeps the conversation and the files, and gives the slot back; false brings the session back, through
    the queue. Only with a persistent workspace: of an ephemeral one nothing would be left, so such a session goes on. One that
    has not got a slot yet does not queue for one."""


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


class QueuePlace(Schema):
    """The session's place among those that wait."""

    position: int | None = None
    """1 is next. Refreshed at most every 30 s, and given to the first 50 only."""
    since: str = Timestamp
    """When the session began to wait."""


class UsageStatus(Schema):
    """What the session has used."""

    input_tokens: int = 0
    """Tokens sent to the model."""
    output_tokens: int = 0
    """Tokens that the model wrote."""
    total_tokens: int = 0
    """Both together."""
    cost_usd: Annotated[str, Field(alias="costUSD")] = "0"
    """Cost in US dollars: of models by litellm's price table, which may not know one, and of tool calls that have a price."""
    llm_calls: int = 0
    """Calls of the model."""
    tool_calls: int = 0
    """Calls of tools."""


class PendingApprovalStatus(Schema):
    """A tool call that waits for a person's decision."""

    tool: str
    """The tool."""
    tool_call_id: str
    """What the decision must name."""
    reason: str | None = None
    """Why a person is asked. The call's arguments stay in the pod: they are at the session's own API."""


class AgentSessionStatus(Schema):
    """What became of it. Written by the operator alone."""

    phase: Phase = "Pending"
    """The state in one word, derived from the conditions, for people. Programs should read the conditions."""
    conditions: Annotated[
        list[Condition],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = []
    """Admitted, PodReady, Active, Finished and Ready; Suspended where that was asked for; Stalled where it cannot go on by
    itself."""
    observed_generation: int = 0
    """The metadata.generation that this status was decided on."""
    pod_name: str | None = None
    """The session's pod, in the session's namespace."""
    model: str | None = None
    """The model that the session runs with, after the class's defaults."""
    workspace: WorkspaceStatus | None = None
    """Set for a session whose workspace is persistent."""
    lost_pods: LostPods | None = None
    """Set where pods of a persistent session were lost and replaced."""
    queue: QueuePlace | None = None
    """Set while the session waits for a slot."""
    start_time: Annotated[str, Timestamp] | None = None
    """When the agent's container first started."""
    finish_time: Annotated[str, Timestamp] | None = None
    """When the session finished."""
    last_activity_time: Annotated[str, Timestamp] | None = None
    """When the agent last did something."""
    usage: UsageStatus | None = None
    """What the session has used."""
    message_count: int | None = None
    """Messages in the conversation."""
    pending_approvals: Annotated[
        list[PendingApprovalStatus],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["toolCallId"]}),
    ] = []
    """Tool calls that wait for a person's decision."""
    last_message: str | None = None
    """The agent's last words, cut at 4 KiB."""
