"""Everything that shapes an agent, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.approval import Rule
from agent.budget import Budget
from agent.reasoning import ReasoningEffort


@dataclass(frozen=True)
class Patience:
    """How long an agent waits for its model, in seconds."""

    notice: float = 60.0
    """Silence after which the person is told that the agent waits."""
    silence: float = 180.0
    """Silence after which a call is tried again. A model that thinks and does not show it is silent, too."""
    unavailable: float = 900.0
    """How long a call is tried again while the model is unavailable, from the first failure on."""
    rate_limited: float = 900.0
    """The same while the provider limits the rate of requests."""
    first_wait: float = 1.0
    """Before the second try of a call; later waits are longer."""


@dataclass(frozen=True)
class AgentConfig:
    """Settings of one agent, fixed for its lifetime."""

    model: str
    """The model's name as litellm knows it (`anthropic/claude-…`), or any name when `base_url` is set."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server; None means the provider's own."""
    api_key: str | None = field(default=None, repr=False)
    """None leaves it to litellm, which reads the provider's usual environment variable."""
    images: bool | None = None
    """Whether the model takes images; None means what the price table says."""
    instructions: str | None = None
    """Added to the system message."""
    max_iterations: int = 300
    """Model calls in one turn, at most."""
    research_tools: tuple[str, ...] = ("*",)
    """Globs over tool names: which of the offered read-only tools a sub-agent of `research` gets."""
    research_iterations: int = 60
    """Model calls of one sub-agent, at most."""
    rules: tuple[Rule, ...] = ()
    """The approval policy; the first rule that matches a call decides, before the tool's own default."""
    auto_approve_usd: float | None = None
    """A call that should be asked about runs without a question while its price is known and, with it, the models and
    the priced calls of the session have cost no more than this, nor than the budget. None always asks."""
    budget: Budget = field(default_factory=Budget)
    patience: Patience = field(default_factory=Patience)
    context_window: int | None = None
    """Tokens; None means what the price table says of the model, if anything."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model should think, where it can be told; None leaves it to the provider."""
    somebody_answers: bool = True
    """Whether there is a person who answers what tools' servers ask in the middle of a call; if not, it is declined."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that must appear in no event, no message and no log."""
