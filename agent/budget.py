"""What a session may spend."""

from __future__ import annotations

from dataclasses import dataclass

from agent.messages import Usage


@dataclass(frozen=True)
class Budget:
    """Limits over the whole session; None is no limit. Checked before each model call, so the last one may overrun."""

    tokens: int | None = None
    """Input and output together."""
    cost_usd: float | None = None
    """For models and for priced tool calls."""

    def exhausted_by(self, usage: Usage) -> str | None:
        """Which limit is used up, in words; None if none is."""
        tokens = usage.input_tokens + usage.output_tokens
        if self.tokens is not None and tokens >= self.tokens:
            return f"the session's budget of {self.tokens} tokens is used up ({tokens} used)"
        if self.cost_usd is not None and usage.spent_usd >= self.cost_usd:
            return f"the session's budget of ${self.cost_usd:.2f} is used up (${usage.spent_usd:.2f} spent)"
        return None
