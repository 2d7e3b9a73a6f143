"""From what a session asks for and what its class allows to what its pod runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from agentsession_operator.api.session import AgentSessionSpec
from agentsession_operator.api.session_class import AgentSessionClassSpec, ModelRule
from agentsession_operator.objects import SessionClass, choose_class
from session_runtime.wire import AgentSettings, ToolSelection

_DEFAULT_MAX_ITERATIONS: Final = 300
_NO_TOOLS: Final = ToolSelection(allow=())


@dataclass(frozen=True, slots=True)
class Resolved:
    """A session that can be started."""

    session_class: AgentSessionClassSpec
    agent: AgentSettings


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A session that cannot be started as it is; `message` names the field and the remedy."""

    message: str


def resolve(spec: AgentSessionSpec, classes: Mapping[str, SessionClass]) -> Resolved | Misconfigured:
    """Apply the class's defaults and check its limits."""
    found = choose_class(classes, spec.class_name)
    if found is None:
        known = ", ".join(sorted(classes)) or "none"
        if spec.class_name is None:
            return Misconfigured(
                "spec.className is unset and no AgentSessionClass is the default. Name a class "
                f"(there are: {known}), or annotate one with agentsession.dev/is-default-class=true."
            )
        return Misconfigured(
            f"spec.className: there is no AgentSessionClass {spec.class_name!r} (there are: {known}). "
            "The session starts when the class is created."
        )
    offered = found.spec
    model = spec.agent.model or offered.agent.model
    if model is None:
        return Misconfigured(
            f"spec.agent.model is unset and the class {found.meta.name!r} has no default. Name a model in the session."
        )
    rule = _rule_for(model, offered.models)
    if rule is None:
        allowed = ", ".join(rule.match for rule in offered.models)
        return Misconfigured(f"spec.agent.model: the class {found.meta.name!r} does not allow {model!r}. It allows: {allowed}.")
    return Resolved(
        session_class=offered,
        agent=AgentSettings(
            model=model,
            base_url=rule.base_url,
            instructions=spec.agent.instructions or offered.agent.instructions,
            max_iterations=spec.agent.max_iterations or offered.agent.max_iterations or _DEFAULT_MAX_ITERATIONS,
            tools=_tools(spec, offered) if rule.tool_calling else (_NO_TOOLS,),
            web_fetch_networks=tuple(offered.web_fetch.allowed_networks),
        ),
    )


def _rule_for(model: str, rules: Sequence[ModelRule]) -> ModelRule | None:
    if not rules:
        return ModelRule(match="*")
    return next((rule for rule in rules if fnmatchcase(model, rule.match)), None)


def _tools(spec: AgentSessionSpec, offered: AgentSessionClassSpec) -> tuple[ToolSelection, ...]:
    """The class's selection and the session's. They stay apart: two globs do not intersect to one, and which tools there
    are shows only when the agent has asked its MCP servers."""
    given = (selection for selection in (offered.agent.tools, spec.agent.tools) if selection is not None)
    return tuple(
        ToolSelection(allow=("*",) if selection.allow is None else tuple(selection.allow), deny=tuple(selection.deny or ()))
        for selection in given
    )
