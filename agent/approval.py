"""Which tool calls may run, which are refused, and which need a person's consent. Decisions only; the loop acts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

Action = Literal["allow", "ask", "deny"]


@dataclass(frozen=True)
class Rule:
    """One line of an approval policy."""

    tool: str
    """Glob over tool names."""
    action: Action
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Argument name to glob. Each of these arguments must be present and match: text as it is, other values as JSON."""
    reason: str = ""

    def matches(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        return fnmatchcase(tool, self.tool) and all(
            name in arguments and fnmatchcase(_as_text(arguments[name]), glob) for name, glob in self.arguments.items()
        )


@dataclass(frozen=True)
class Verdict:
    """What to do with a call, and why."""

    action: Action
    reason: str = ""


@dataclass(frozen=True)
class ApprovalDecision:
    """What a person decided about one pending call."""

    tool_call_id: str
    approved: bool
    feedback: str | None = None
    """For the model, if the call is denied."""
    arguments: dict[str, Any] | None = None
    """Run it with these arguments instead, if they fit the tool and no rule forbids them."""


def judge(
    rules: Sequence[Rule],
    tool: str,
    arguments: Mapping[str, Any],
    needs_consent: Callable[[Mapping[str, Any]], str | None],
) -> Verdict:
    """Decide about a call of `tool`: by the first rule that matches or, if none does, by the tool's own default.

    `needs_consent` (`Tool.needs_consent`) returns why a person must be asked, or None; it is called only if no rule matches.
    """
    for rule in rules:
        if rule.matches(tool, arguments):
            return Verdict(rule.action, rule.reason or f"the policy says {rule.action} for {rule.tool}")
    reason = needs_consent(arguments)
    return Verdict("allow") if reason is None else Verdict("ask", reason)


def within_cap(price: float | None, spent: float, cap: float | None) -> bool:
    """Whether a call that needs consent may run without it: its price is known and still fits under the cap.

    `spent` is what models and priced calls have cost so far; all in US dollars.
    """
    return cap is not None and price is not None and spent + price <= cap


def denial(feedback: str | None) -> str:
    """The result of a call that a person did not approve."""
    said = f" They said: {feedback}" if feedback else ""
    return f"A person denied this call; it was not run.{said}"


def refusal(reason: str) -> str:
    """The result of a call that the policy forbids."""
    return f"This call is not allowed: {reason}. It was not run."


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
