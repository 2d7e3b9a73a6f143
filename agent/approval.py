"""Which tool calls may run, which are refused, and which need a person's consent. Decisions only; the loop acts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """Argument name to glob. Each of these arguments must be present and match: text as it is, other values as JSON, with
    letters and line breaks as they are rather than escaped. A rule that asks or denies also matches where quotes and
    backslashes in the JSON are not escaped; one that allows does not, because other values could then look the same."""
    reason: str = ""

    def matches(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        return fnmatchcase(tool, self.tool) and all(
            name in arguments and any(fnmatchcase(text, glob) for text in self._texts(arguments[name]))
            for name, glob in self.arguments.items()
        )

    def _texts(self, value: Any) -> Iterator[str]:
        """What the globs are matched with."""
        if isinstance(value, str):
            yield value
            return
        yield from (json.dumps(value, ensure_ascii=ascii_only) for ascii_only in (True, False))
        readable = json.dumps(value, ensure_ascii=False)
        yield _unescaped(readable, _CONTROL)
        if self.action != "allow":
            yield _unescaped(readable, _CONTROL | _MARKS)


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


_CONTROL = {"n": "\n", "r": "\r", "t": "\t"}
_MARKS = {'"': '"', "\\": "\\"}


def _unescaped(text: str, characters: Mapping[str, str]) -> str:
    """JSON text without the escapes of these characters."""
    return re.sub(r"\\(.)", lambda escape: characters.get(escape[1], escape[0]), text)
