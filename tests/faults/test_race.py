"""The original's race: many creations at once, and exactly as many holders as the caps allow."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.api import condition, sessions_path
from support.faults.judge import at_most, at_most_per_user
from support.faults.table import Record
from support.faults.world import OpenWorld, World, overlapping

SESSIONS = 200


def create_at_once(w: World, users: int) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: w.create(f"s{number}", user=f"user-{number % users}"), range(SESSIONS)))


def held(w: World) -> Counter[str]:
    """How many sessions each user holds, once every session has a word on its admission."""

    def all_told() -> bool:
        items = w.api.get(sessions_path(w.namespace))["items"]
        told = [item for item in items if item.get("status", {}).get("conditions")]
        assert len(told) == SESSIONS, f"{len(told)} of {SESSIONS} are told"
        return True

    w.until(all_told, "a word on every session", within=40)
    return Counter(holder.user for holder in w.history().end().holders().values())


def test_one_user_creates_200_sessions_at_once(open_world: OpenWorld, record: Record) -> None:
    w = open_world(cap=50, per_user=10)
    create_at_once(w, users=1)
    users, history = held(w), w.history()
    breaches = history.breaches(at_most(50), at_most_per_user(10))
    seen = f"{users.total()} hold, at most {history.most_holders()} at any event"
    record("race: 200 creations by one user", "exactly 10 hold", seen, users.total() == 10 and not breaches)


def test_30_users_create_200_sessions_at_once(open_world: OpenWorld, record: Record) -> None:
    """The operator starts afterwards, so that everybody's sessions are there when it first decides."""
    w = open_world(cap=50, per_user=10, start=False)
    create_at_once(w, users=30)
    w.operator.start()
    users, history = held(w), w.history()
    breaches = history.breaches(at_most(50), at_most_per_user(10))
    fair = len(users) == 30 and max(users.values()) == 2
    seen = f"{users.total()} hold, of {len(users)} users, at most {max(users.values())} of one"
    record("race: 200 creations by 30 users", "exactly 50, 1 or 2 of each", seen, users.total() == 50 and fair and not breaches)


WORDS = {
    1: "You have reached the maximum of 10 concurrent sessions. Please close an existing session first.",
    30: "Server is at capacity (50/50 sessions). Please try again later.",
}
"""What the original told those who found no room, by the number of users."""


@pytest.mark.parametrize("users", [1, 30])
def test_200_sessions_at_once_under_reject_are_held_or_rejected(open_world: OpenWorld, record: Record, users: int) -> None:
    """As in the original: nobody waits. The limit of all is 50, that of one user 10."""
    quotas = overlapping(50, 10)
    w = open_world(quotas={**quotas, "default": {**quotas["default"], "whenFull": "Reject"}})
    create_at_once(w, users=users)
    holders = held(w)

    def finished() -> dict[str, int]:
        ended = [condition(item, "Finished") for item in w.sessions()]
        found = Counter(str(one["message"]) for one in ended if one.get("reason") == "Rejected")
        assert found.total() == SESSIONS - holders.total()
        return found

    rejected = w.until(finished, "the end of those that hold no slot")
    names, history = w.names(), w.history()
    with_pods = {names[uid] for uid in history.pods_ever()}
    most = {1: 10, 30: 50}[users]
    wanted = f"{most} hold, {most} had a pod, {200 - most} are told: {WORDS[users]}"
    told = "; ".join(f"{number} are told: {words}" for words, number in rejected.items())
    seen = f"{holders.total()} hold, {len(with_pods)} had a pod, {told}"
    record(f"race: 200 creations under Reject, {users} users", wanted, seen, seen == wanted and not w.breaches())
