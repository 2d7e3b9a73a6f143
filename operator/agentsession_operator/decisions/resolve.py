"""From what a session asks for and what its class allows to what its pod runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from agentsession_operator.api import agent as api
from agentsession_operator.api.objects import SessionClass, choose_class
from agentsession_operator.api.session import AgentSessionSpec
from agentsession_operator.api.session_class import AgentSessionClassSpec, ModelRule
from session_runtime.wire import (
    HEADER_PREFIX,
    OAUTH_PREFIX,
    AgentSettings,
    ApprovalRule,
    Budget,
    McpHeader,
    McpOAuth,
    McpServerSettings,
    ModelRetries,
    ToolSelection,
)

_DEFAULT_MAX_ITERATIONS: Final = 300
_NO_TOOLS: Final = ToolSelection(allow=())


@dataclass(frozen=True, slots=True)
class Resolved:
    """A session that can be started."""

    session_class: AgentSessionClassSpec
    agent: AgentSettings
    server_secrets: Mapping[str, api.SecretKeyRef]
    """Where the values of MCP servers' headers and OAuth clients are, by the environment variable that carries them to the
    agent."""


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A session that cannot be started as it is; `message` names the field and the remedy."""

    message: str


def resolve(spec: AgentSessionSpec, classes: Mapping[str, SessionClass]) -> Resolved | Misconfigured:
    """Apply the class's defaults and check its limits."""
    found = choose_class(classes, spec.class_name)
    if found is None:
        return _no_class(spec.class_name, classes)
    if found.spec is None:
        return Misconfigured(
            f"spec.className: the AgentSessionClass {found.meta.name} cannot be read. Fix it "
            f"(kubectl edit agentsessionclass {found.meta.name}), and the session continues."
        )
    offered, name = found.spec, found.meta.name
    chosen = _model(spec, name, offered)
    if isinstance(chosen, Misconfigured):
        return chosen
    servers = _mcp_servers(spec, name, offered)
    if isinstance(servers, Misconfigured):
        return servers
    model, rule = chosen
    if not rule.tool_calling:
        servers = ()
    of_class, own = offered.agent, spec.agent
    return Resolved(
        session_class=offered,
        agent=AgentSettings(
            model=model,
            base_url=rule.base_url,
            images=rule.images,
            instructions=own.instructions or of_class.instructions,
            max_iterations=own.max_iterations or of_class.max_iterations or _DEFAULT_MAX_ITERATIONS,
            tools=_tools(of_class, own) if rule.tool_calling else (_NO_TOOLS,),
            web_fetch_networks=tuple(offered.web_fetch.allowed_networks),
            mcp_servers=tuple(_server(number, server) for number, server in enumerate(servers)),
            approval_policy=tuple(_approval_rule(line) for line in (*of_class.approval_policy, *own.approval_policy)),
            auto_approve_usd=_least_dollars(of_class.auto_approve_cost_usd, own.auto_approve_cost_usd),
            reasoning_effort=own.reasoning_effort or of_class.reasoning_effort,
            budget=_budget(offered.budget, spec.budget),
            model_retries=ModelRetries(
                silence_seconds=offered.model_retries.silence_seconds,
                unavailable_seconds=offered.model_retries.unavailable_seconds,
                rate_limited_seconds=offered.model_retries.rate_limited_seconds,
            ),
        ),
        server_secrets={
            variable: secret for number, server in enumerate(servers) for variable, secret in _secrets(number, server)
        },
    )


def _no_class(name: str | None, classes: Mapping[str, SessionClass]) -> Misconfigured:
    known = ", ".join(sorted(classes)) or "none"
    if name is None:
        return Misconfigured(
            "spec.className is unset and no AgentSessionClass is the default. Name a class "
            f"(there are: {known}), or annotate one with agentsession.dev/is-default-class=true."
        )
    return Misconfigured(
        f"spec.className: there is no AgentSessionClass {name!r} (there are: {known}). "
        "The session starts when the class is created."
    )


def _model(spec: AgentSessionSpec, name: str, offered: AgentSessionClassSpec) -> tuple[str, ModelRule] | Misconfigured:
    """The session's model or else the class's, and the rule that allows it."""
    model = spec.agent.model or offered.agent.model
    if model is None:
        return Misconfigured(f"spec.agent.model is unset and the class {name!r} has no default. Name a model in the session.")
    rule = _rule_for(model, offered.models)
    if rule is None:
        allowed = ", ".join(rule.match for rule in offered.models)
        return Misconfigured(f"spec.agent.model: the class {name!r} does not allow {model!r}. It allows: {allowed}.")
    return model, rule


def _rule_for(model: str, rules: Sequence[ModelRule]) -> ModelRule | None:
    if not rules:
        return ModelRule(match="*")
    return next((rule for rule in rules if fnmatchcase(model, rule.match)), None)


def _tools(of_class: api.AgentSpec, own: api.AgentSpec) -> tuple[ToolSelection, ...]:
    """The class's selection and the session's. They stay apart: two globs do not intersect to one, and which tools there
    are shows only when the agent has asked its MCP servers."""
    return tuple(_selection(given) for given in (of_class.tools, own.tools) if given is not None)


def _selection(given: api.ToolSelection) -> ToolSelection:
    return ToolSelection(allow=("*",) if given.allow is None else tuple(given.allow), deny=tuple(given.deny or ()))


def _mcp_servers(spec: AgentSessionSpec, name: str, offered: AgentSessionClassSpec) -> Sequence[api.McpServer] | Misconfigured:
    """The class's servers and, where it lets them have some, the session's own."""
    of_class, own = offered.agent.mcp_servers, spec.agent.mcp_servers
    if own and not offered.allow_mcp_servers:
        return Misconfigured(
            f"spec.agent.mcpServers: the class {name!r} does not let sessions name MCP servers. Leave them out, "
            "or name a class with allowMCPServers: true."
        )
    taken = {server.name for server in of_class} & {server.name for server in own}
    if taken:
        return Misconfigured(
            f"spec.agent.mcpServers: the class {name!r} has servers of the same name: {', '.join(sorted(taken))}. "
            "Give yours other names."
        )
    return (*of_class, *own)


def _server(number: int, server: api.McpServer) -> McpServerSettings:
    headers = (
        McpHeader(name=header.name, variable=_variable(number, position)) for position, header in enumerate(server.headers)
    )
    tools = ToolSelection() if server.tools is None else _selection(server.tools)
    oauth = None if server.oauth is None else _oauth(number, server.oauth)
    return McpServerSettings(name=server.name, url=server.url, headers=tuple(headers), oauth=oauth, tools=tools)


def _oauth(number: int, given: api.McpOAuth) -> McpOAuth:
    return McpOAuth(
        issuer=given.issuer,
        client_id=given.client_id.value,
        client_id_variable=_oauth_variable(number, "ID", given.client_id),
        client_secret_variable=_oauth_variable(number, "SECRET", given.client_secret),
        private_key_variable=_oauth_variable(number, "KEY", given.private_key),
        scopes=tuple(given.scopes),
    )


def _secrets(number: int, server: api.McpServer) -> Iterator[tuple[str, api.SecretKeyRef]]:
    """What the agent's container gets for a server, by environment variable."""
    for position, header in enumerate(server.headers):
        yield _variable(number, position), header.secret_key_ref
    if server.oauth is not None:
        of_client = {"ID": server.oauth.client_id, "SECRET": server.oauth.client_secret, "KEY": server.oauth.private_key}
        for name, value in of_client.items():
            variable = _oauth_variable(number, name, value)
            if variable is not None and value is not None and value.secret_key_ref is not None:
                yield variable, value.secret_key_ref


def _oauth_variable(server: int, name: str, value: api.TextOrSecretKey | api.SecretValue | None) -> str | None:
    """None when the value is in no Secret."""
    return None if value is None or value.secret_key_ref is None else f"{OAUTH_PREFIX}{server}_{name}"


def _variable(server: int, header: int) -> str:
    """By number, since names of servers and headers are not all names of variables."""
    return f"{HEADER_PREFIX}{server}_{header}"


def _approval_rule(rule: api.ApprovalRule) -> ApprovalRule:
    return ApprovalRule(tool=rule.tool, arguments=rule.arguments, action=rule.action, reason=rule.reason or "")


def _budget(of_class: api.Budget, own: api.Budget) -> Budget:
    """Of two limits the smaller one."""
    tokens = [limit for limit in (of_class.tokens, own.tokens) if limit is not None]
    return Budget(tokens=min(tokens, default=None), cost_usd=_least_dollars(of_class.cost_usd, own.cost_usd))


def _least_dollars(*amounts: str | None) -> float | None:
    return min((float(amount) for amount in amounts if amount is not None), default=None)
