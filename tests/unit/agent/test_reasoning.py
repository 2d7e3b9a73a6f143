from __future__ import annotations

from agent.reasoning import LEVELS, lowered, supported


def test_efforts_go_down_step_by_step_to_none_said() -> None:
    steps = [lowered(level) for level in LEVELS]
    assert steps == [None, None, "minimal", "low", "medium", "high", "xhigh"]
    assert supported("max", {}) == "high"
    assert supported("max", {"supports_xhigh_reasoning_effort": True}) == "xhigh"
    assert supported("minimal", {"supports_minimal_reasoning_effort": False}) is None
    assert supported(None, {}) is None
