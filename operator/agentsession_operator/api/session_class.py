"""AgentSessionClass: settings that the platform team makes for sessions."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from agentsession_operator.api.agent import AgentSpec, Budget
from agentsession_operator.api.meta import MAX_NAME, Schema
from agentsession_operator.api.selector import MAX_LABEL_KEY, LabelValue
from agentsession_operator.api.workspace import WorkspaceSpec

QUANTITY: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
"""Of Kubernetes' resource quantities those that a pod may ask for: none is negative."""
Quantity = Annotated[
    str,
    BeforeValidator(str),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, "pattern": QUANTITY}),
]
Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]
Name = Annotated[str, Field(max_length=MAX_NAME)]
Network = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "isCIDR(self) && cidr(self).masked() == cidr(self)",
                    "message": "must be a network, for example 10.0.0.0/8 or fd00::/8",
                }
            ]
        },
    ),
]


class ContainerResources(Schema):
    """Resources of one container, as in a pod."""

    requests: Quantities | None = None
    """What the scheduler reserves, for example cpu: 100m, memory: 256Mi."""
    limits: Quantities | None = None
    """The most that the container can use."""


class PodResources(Schema):
    """Resources of the session pod's two containers."""

    agent: ContainerResources | None = None
    """The container that talks to the model."""
    workspace: ContainerResources | None = None
    """The container that runs the model's commands. Commands are killed when their files take 90 % of
    limits.ephemeral-storage (default 10Gi)."""


class Toleration(Schema):
    """A node taint that session pods tolerate, as in a pod."""

    key: Annotated[str, Field(max_length=MAX_LABEL_KEY)] | None = None
    """The taint's key. Unset, with operator Exists, matches every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the key relates to the value."""
    value: LabelValue | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect. Unset matches all effects."""


class ModelRule(Schema):
    """Models that sessions of the class may use, and where they are served."""

    match: Annotated[str, Field(min_length=1, max_length=256)]
    """Glob over model names, for example anthropic/* or openai/gpt-5*."""
    base_url: Annotated[str | None, Field(alias="baseURL", pattern="^https?://", max_length=2048)] = None
    """URL of an OpenAI-compatible server for these models. Unset means the provider's own."""
    tool_calling: bool = True
    """Whether these models can call tools. If false, the agent works without tools."""
    images: bool | None = None
    """Whether these models take images, which tools return. Unset means what litellm's table of models says; a model that the
    table does not have, for example on a server of your own, is sent none."""


class ModelRetries(Schema):
    """How long a session waits for its model before a turn fails. While it waits, it holds its slot, and can be interrupted."""

    silence_seconds: Annotated[int, Field(ge=10, le=3600)] = 180
    """A model call without any content for this long is tried again. A model that thinks without showing it is silent, too."""
    unavailable_seconds: Annotated[int, Field(ge=0, le=86_400)] = 900
    """How long a call is retried while the model's server cannot be reached or has a fault. 0 does not retry."""
    rate_limited_seconds: Annotated[int, Field(ge=0, le=86_400)] = 900
    """How long a call is retried while the provider limits the rate of requests. 0 does not retry."""


class WebFetch(Schema):
    """The tool web_fetch."""

    allowed_networks: Annotated[list[Network], Field(max_length=64)] = []
    """Non-public networks that the tool may reach, for example 10.0.0.0/8. All other non-public addresses are refused."""


class Archive(Schema):
    """Where finished sessions are archived."""

    hugging_face_repository: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=193)] | None
    ) = None
    """Dataset repository on the Hugging Face Hub, as owner/name. A missing repository is created as private. When a session
    finishes, its events and its conversation (not the files of its workspace) are uploaded as NAMESPACE/NAME-UID.tar.gz, with
    the HF_TOKEN of its credentials. The pod waits at most 30 s for the upload; a failed upload is reported in the session's
    log. Unset archives nothing."""


class AgentSessionClassSpec(Schema):
    """The settings of sessions of this class, and what sessions may request."""

    description: Annotated[str, Field(max_length=1024)] | None = None
    """A description for people who choose a class."""
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    """Which sessions get a free slot first: those of the class with the higher number. No session that works is stopped for
    another one."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Image of the agent, and of the workspace unless `workspace.image` is set. Unset means the runtime image that the
    operator was installed with. An image of an older release ignores settings that it does not know, including limits."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """As in a pod, for all images. Unset means the policy that the operator was installed with."""
    image_pull_secrets: Annotated[list[Name], Field(max_length=16)] = []
    """Names of Secrets in the session's namespace for pulling the images."""
    resources: PodResources = PodResources()
    """Resources of the session pod's two containers."""
    workspace: WorkspaceSpec = WorkspaceSpec()
    """Where the model's commands run, and whether their files are kept."""
    runtime_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """RuntimeClass of session pods, for example one that uses gVisor."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """Labels of the nodes that session pods may run on."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    """Taints that session pods tolerate."""
    models: Annotated[list[ModelRule], Field(max_length=64)] = []
    """Models that sessions may use. The first rule that matches applies; a model without a matching rule is refused. An
    empty list allows every model."""
    model_retries: ModelRetries = ModelRetries()
    """How long sessions wait for their model. Sessions cannot change it."""
    agent: AgentSpec = AgentSpec()
    """Defaults for fields that sessions leave unset. `tools` is also a ceiling: a session can restrict it, not extend it. Every
    session gets the servers in `mcpServers`. The rules in `approvalPolicy` come before the session's."""
    archive: Archive = Archive()
    """Where finished sessions are archived."""
    web_fetch: WebFetch = WebFetch()
    """The networks that the tool web_fetch may reach. Sessions cannot change them."""
    allow_mcp_servers: Annotated[bool, Field(alias="allowMCPServers")] = False
    """Whether sessions may add MCP servers of their own to those in `agent.mcpServers`. Such a session decides where its data
    goes, and can send a server any value of any Secret in its namespace."""
    budget: Budget = Budget()
    """The default for sessions without a budget, and the maximum for all sessions."""
