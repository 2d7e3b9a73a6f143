"""What the cache keeps of a session: what decisions need, and equal parts once.

A session's texts (a prompt of 64 Ki characters, instructions, rules) are for its pod alone: they are read from the API server
when the pod is created. And ten thousand sessions that wait say the same of themselves in their conditions.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Final, TypeVar

from agentsession_operator.api.agent import AgentSpec
from agentsession_operator.api.objects import Session

SHORT: Final = 1_024
"""Characters of a session's prompt and of its agent's settings (as JSON) that are kept: most sessions need no second read."""
KNOWN: Final = 20_000
"""Values that are remembered to be shared."""

T = TypeVar("T", bound=Hashable)


class Thrift:
    """Makes sessions small."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Hashable] = {}
        self._agents: dict[str, AgentSpec] = {}

    def kept(self, session: Session) -> Session:
        """The session as it is kept. `whole` is False if texts were left out."""
        spec, status, meta = session.spec, session.status, session.meta
        settings = spec.agent.model_dump_json(exclude_defaults=True)
        whole = session.whole and len(spec.prompt or "") + len(settings) <= SHORT
        spec = spec.model_copy(
            update={
                "user": self._shared(spec.user),
                "prompt": spec.prompt if whole else None,
                "agent": self._agent(settings, spec.agent, whole),
                "budget": self._shared(spec.budget),
                "credentials": self._shared(spec.credentials),
            }
        )
        status = status.model_copy(update={"conditions": [self._shared(condition) for condition in status.conditions]})
        meta = replace(meta, namespace=self._shared(meta.namespace))
        return replace(session, meta=meta, spec=spec, status=status, whole=whole)

    def _agent(self, settings: str, agent: AgentSpec, whole: bool) -> AgentSpec:
        """Without its texts: what says whether a class allows it."""
        if not whole:
            servers = [
                server.model_copy(update={"url": "", "headers": [], "oauth": None, "tools": None})
                for server in agent.mcp_servers
            ]
            agent = AgentSpec(model=agent.model, mcp_servers=servers)
            settings = agent.model_dump_json(exclude_defaults=True)
        if len(self._agents) >= KNOWN:
            self._agents.clear()
        return self._agents.setdefault(settings, agent)

    def _shared(self, value: T) -> T:
        if len(self._known) >= KNOWN:
            self._known.clear()
        return self._known.setdefault(value, value)  # type: ignore[return-value]
