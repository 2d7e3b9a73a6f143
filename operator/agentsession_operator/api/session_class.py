"""AgentSessionClass: what the platform team decides and a session cannot."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from agentsession_operator.api.agent import AgentSpec, Budget
from agentsession_operator.api.meta import Schema
from agentsession_operator.api.workspace import WorkspaceSpec

Quantity = Annotated[str, BeforeValidator(str), WithJsonSchema({"x-kubernetes-int-or-string": True})]
Quantities = dict[str, Quantity]
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
    """What the container cannot exceed."""


class PodResources(Schema):
    """Resources of the session pod's two containers."""

    agent: ContainerResources | None = None
    """The container that talks to the model."""
    workspace: ContainerResources | None = None
    """The container in which the model's commands run. They are killed when their files take nine tenths of
    limits.ephemeral-storage (10Gi unless set)."""


class Toleration(Schema):
    """A node taint that session pods tolerate, as in a pod."""

    key: str | None = None
    """The taint's key; unset with operator Exists matches every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the key relates to the value."""
    value: str | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; unset matches all."""


class ModelRule(Schema):
    """Models that sessions of the class may name, and where they are served."""

    match: Annotated[str, Field(min_length=1, max_length=256)]
    """Glob over model names, for example anthropic/* or openai/gpt-5*."""
    base_url: Annotated[str | None, Field(alias="baseURL", pattern="^https?://", max_length=2048)] = None
    """Address of an OpenAI-compatible server for these models; unset means the provider's own."""
    tool_calling: bool = True
    """Whether these models can call tools. With false the agent offers them none, and answers from the model alone."""


class WebFetch(Schema):
    """The tool web_fetch."""

    allowed_networks: Annotated[list[Network], Field(max_length=64)] = []
    """Networks that it may reach although they are not public, for example 10.0.0.0/8; it refuses every other address that
    is not public."""


class Archive(Schema):
    """Where sessions are kept when they have finished."""

    hugging_face_repository: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=193)] | None
    ) = None
    """Dataset repository on the Hugging Face Hub, as owner/name; made, and private then, if it is not there. Each session is
    uploaded when it finishes, as NAMESPACE/NAME-UID.tar.gz: its events and its conversation, without its workspace's files,
    with the HF_TOKEN of its credentials. The pod ends when that is done, and after 30 s in any case; an upload that fails is
    told in the session's log. Unset keeps nothing."""


class AgentSessionClassSpec(Schema):
    """What sessions of this class get, and what they may ask for."""

    description: Annotated[str, Field(max_length=1024)] | None = None
    """For people who choose a class."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Image of the agent, and of the workspace where `workspace.image` names no other; unset means the runtime image that the
    operator was installed with. One of an older release ignores settings that it does not know yet, also limits."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """As in a pod, for all images; unset means what the operator was installed with."""
    image_pull_secrets: Annotated[list[str], Field(max_length=16)] = []
    """Names of Secrets in the session's namespace to pull the images with."""
    resources: PodResources = PodResources()
    """Resources of the session pod's two containers."""
    workspace: WorkspaceSpec = WorkspaceSpec()
    """Where the model's commands run, and what is kept of it."""
    runtime_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """RuntimeClass of session pods, for example one that uses gVisor."""
    node_selector: dict[str, str] | None = None
    """Labels of the nodes that session pods may run on."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    """Taints that session pods tolerate."""
    models: Annotated[list[ModelRule], Field(max_length=64)] = []
    """Models that sessions may name: the first rule that matches counts, and a model that none matches is refused. An empty
    list allows every model."""
    agent: AgentSpec = AgentSpec()
    """Defaults for what sessions leave unset. `tools` is also a ceiling: a session can narrow it and not widen it. The servers
    in `mcpServers` are offered to every session, and the rules in `approvalPolicy` come before the session's."""
    archive: Archive = Archive()
    """Where sessions are kept when they have finished."""
    web_fetch: WebFetch = WebFetch()
    """What the tool web_fetch may reach. Sessions cannot change it."""
    allow_mcp_servers: Annotated[bool, Field(alias="allowMCPServers")] = False
    """Whether sessions may name MCP servers of their own, besides those in `agent.mcpServers`. A session that may decides
    where its data goes, and can send a server any value of any Secret in its namespace."""
    budget: Budget = Budget()
    """For sessions that set none, and the most that a session can set."""
