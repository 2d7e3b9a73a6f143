"""The words in which a session is told why it waits, or why it was turned away."""

from __future__ import annotations

from agentsession_operator.api.conditions import AdmittedReason
from agentsession_operator.decisions.quotas.lanes import Blocked
from agentsession_operator.decisions.quotas.limits import BUILT_IN, Group, Limit
from agentsession_operator.decisions.quotas.verdict import TurnedAway, Wait

_BY_ITSELF = "The session starts by itself"


def wait(blocked: Blocked, position: int | None) -> Wait:
    """Why a session waits; `position` is its place among those that wait for the same, if it is near the front."""
    place = "Queued" if position is None else f"Queued at position {position}"
    return Wait(blocked.reason, f"{place}: {_cause(blocked)}", position)


def _cause(blocked: Blocked) -> str:
    limit, group = blocked.limit, blocked.group
    match blocked.reason:
        case AdmittedReason.QUOTA_HELD if limit.spec is None:
            return f"{_name(limit)} cannot be read, so no session that it may count is admitted until it is fixed or deleted."
        case AdmittedReason.QUOTA_HELD:
            return f"{_name(limit)} is on hold (stopPolicy {limit.rules.stop_policy}). {_BY_ITSELF} after the hold."
        case AdmittedReason.USER_LIMIT_REACHED if group is not None:
            reached = f"{_who(group)} the maximum of {group.cap} concurrent sessions ({_name(limit)})."
            return f"{reached} {_BY_ITSELF} when one of them ends or is suspended."
        case AdmittedReason.GLOBAL_LIMIT_REACHED:
            most = limit.rules.max_sessions
            in_use = "the only slot is in use" if most == 1 else f"all {most} slots are in use"
            return f"{in_use} ({_name(limit)}). {_BY_ITSELF} when one is free."
        case _:
            return f"others are first ({_name(limit)}). {_BY_ITSELF}."


def rejected(blocked: Blocked) -> TurnedAway:
    """The messages of the session manager that this product took the place of: clients match them."""
    if blocked.group is not None:
        message = (
            f"You have reached the maximum of {blocked.group.cap} concurrent sessions. Please close an existing session first."
        )
    else:
        held, most = blocked.limit.held, blocked.limit.rules.max_sessions
        message = f"Server is at capacity ({held}/{most} sessions). Please try again later."
    return TurnedAway(AdmittedReason.REJECTED, message)


def queue_is_full(limit: Limit, group: Group | None) -> TurnedAway:
    """The queue of a limit, or the part of it that a user may take, has no place left."""
    if group is not None:
        whose = f" of {group.name}" if group.together else " of this user"
        most, advice = limit.rules.max_waiting_per_user, "Delete one that waits, or apply the session again under another name"
    else:
        whose, most, advice = "", limit.rules.max_waiting, "Apply the session again under another name"
    wait = f"1 session{whose} waits" if most == 1 else f"{most} sessions{whose} wait"
    message = f"The queue is full: {wait} already ({_name(limit)}). {advice} when fewer wait."
    return TurnedAway(AdmittedReason.QUEUE_FULL, message)


def _name(limit: Limit) -> str:
    return f"SessionQuota {limit.name}" if limit.name != BUILT_IN else "the built-in limit: no SessionQuota counts the session"


def _who(group: Group) -> str:
    return f"the users {group.name} together have reached" if group.together else "the user has reached"
