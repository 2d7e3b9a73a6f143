"""How much a model is asked to think before it answers, and what to try if the provider refuses that level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""The levels that litellm knows (`litellm.types.llms.openai.REASONING_EFFORT`), from the least to the most."""

LEVELS: tuple[ReasoningEffort, ...] = get_args(ReasoningEffort)

RARE: tuple[ReasoningEffort, ...] = ("xhigh", "max")
"""A model supports these only if the table says so; it supports the others unless the table says no."""


def lowered(effort: ReasoningEffort) -> ReasoningEffort | None:
    """The next level down; None, which leaves it to the provider, below the least that asks for any thought."""
    at = LEVELS.index(effort)
    return LEVELS[at - 1] if at > 1 else None


def supported(effort: ReasoningEffort | None, model_info: Mapping[str, Any]) -> ReasoningEffort | None:
    """The nearest level, at or below this one, that the table grants the model (`litellm.get_model_info`)."""
    while effort is not None and not _granted(effort, model_info):
        effort = lowered(effort)
    return effort


def _granted(effort: ReasoningEffort, model_info: Mapping[str, Any]) -> bool:
    granted = model_info.get(f"supports_{effort}_reasoning_effort")
    return effort not in RARE if granted is None else bool(granted)
