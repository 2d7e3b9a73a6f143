"""Merge patches of a status: what to send, and whether it may wait."""

from __future__ import annotations


def merge_patch(current: object, desired: object) -> object:
    """What RFC 7386 must say to turn one JSON value into another; {} where two objects are the same."""
    if not isinstance(current, dict) or not isinstance(desired, dict):
        return desired
    patch: dict[str, object] = {key: None for key in current if key not in desired}
    for key, value in desired.items():
        if key not in current:
            patch[key] = value
        elif current[key] != value:
            patch[key] = merge_patch(current[key], value)
    return patch


def only_activity(patch: dict[str, object]) -> bool:
    """Whether a status patch only says how the agent's work proceeds, which may wait for others to be written with it."""
    return patch.keys() <= {"usage", "messageCount", "lastMessage", "lastActivityTime", "toolProblems"}
