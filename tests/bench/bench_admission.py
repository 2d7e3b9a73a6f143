"""The admission by values, without a cluster: what one event costs with thousands of sessions that wait, as a table.

`make bench-scale` prints it first. A pass takes in one change and decides; none of its rows may grow with the number of
sessions, except the last three, which look at all of them: a change of the quotas, the check once a minute, and the positions
every 30 seconds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from agentsession_operator.api.objects import Quota  # noqa: E402 - after the path
from agentsession_operator.decisions.quotas.admission import POSITIONS_SHOWN, Admission  # noqa: E402
from agentsession_operator.decisions.quotas.claims import Claim  # noqa: E402
from bench.table import row, title  # noqa: E402
from support.control_plane.builders import quota  # noqa: E402

SIZES = (1_000, 10_000)
NAMESPACES = 5
BATCH = 64
ROUNDS = 30
PLENTY = 1_000_000


def quotas(number: int, slots: int) -> list[Quota]:
    """The first counts everybody and is full; the others overlap: each counts two of the namespaces."""
    waiting: dict[str, Any] = {"maxWaiting": PLENTY, "maxWaitingPerUser": PLENTY}
    made = [quota("all", maxSessions=slots, maxSessionsPerUser=PLENTY, **waiting)]
    for each in range(1, number):
        names = [f"team-{each % NAMESPACES}", f"team-{(each + 1 + each // NAMESPACES) % NAMESPACES}"]
        selector = {"matchExpressions": [{"key": "team", "operator": "In", "values": names}]}
        made.append(quota(f"q{each}", namespaceSelector=selector, maxSessions=PLENTY, maxSessionsPerUser=PLENTY, **waiting))
    return made


def claim(number: int, users: int, *, holds: bool = False) -> Claim:
    namespace = f"team-{number % NAMESPACES}"
    uid = f"{'h' if holds else 's'}{number}"
    return Claim(uid, f"user-{number % users}", namespace, "default", (f"{number:08}", namespace, uid), holds=holds)


def filled(size: int, users: int, made: list[Quota]) -> Admission:
    """As many sessions that hold a slot as sessions that wait."""
    admission = Admission()
    for number in range(NAMESPACES):
        admission.set_namespace(f"team-{number}", {"team": f"team-{number}"})
    admission.set_quotas(made)
    for number in range(size):
        admission.put(f"h{number}", claim(number, users, holds=True))
        admission.put(f"s{number}", claim(number, users))
    admission.decide(BATCH)
    admission.moved(POSITIONS_SHOWN)
    return admission


def median(call: Callable[[int], object], rounds: int = ROUNDS) -> float:
    """Milliseconds of CPU."""
    spent = []
    for number in range(rounds):
        started = time.process_time()
        call(number)
        spent.append(time.process_time() - started)
    return 1000 * statistics.median(spent)


def measure(size: int, users: int, number_of_quotas: int) -> dict[str, float]:
    made = quotas(number_of_quotas, size)
    admission = filled(size, users, made)

    def freed(number: int) -> None:
        admission.put(f"h{number}", None)
        assert len(admission.decide(BATCH).grants) == 1

    def arrives(number: int) -> None:
        new = claim(size + number, users)
        admission.put(new.uid, new)
        assert admission.decide(BATCH).news == [new.uid]

    def told(number: int) -> None:
        new = claim(size + number, users)
        admission.put(new.uid, replace(new, accepted=True))
        admission.decide(BATCH)

    def another_quota(number: int) -> None:
        admission.set_quotas(made)
        admission.decide(BATCH)

    return {
        "a holder ends, another is admitted": median(freed),
        "a session arrives": median(arrives),
        "its status says so": median(told),
        "the oldest that waits, of each quota": median(
            lambda _: [admission.ledger.oldest_waiting(limit) for limit in admission.ledger.limits.values()]
        ),
        "the positions": median(lambda _: admission.moved(POSITIONS_SHOWN), 5),
        "a full count": median(lambda _: list(admission.ledger.miscounts()), 3),
        "the quotas change": median(another_quota, 3),
    }


def main() -> None:
    """One part of the table for each number of quotas and of users."""
    for number_of_quotas in (1, 20):
        for users in ("50 users", "a user each"):
            title(f"The admission by values, ms of CPU: {number_of_quotas} quotas, {users}; waiting and running: {SIZES}")
            found = [measure(size, 50 if users == "50 users" else size, number_of_quotas) for size in SIZES]
            for what in found[0]:
                row(what, ", ".join(f"{each[what]:.2f}" for each in found))


if __name__ == "__main__":
    main()
