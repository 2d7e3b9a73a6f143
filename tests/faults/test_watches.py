"""Errors in a watch end neither the process nor the watching."""

from __future__ import annotations

import pytest

from support.faults.request import on
from support.faults.rules import Answer, Rule, error_event
from support.faults.table import Record
from support.faults.world import OpenWorld, World


def watched_again(w: World, resource: str, opened: int) -> tuple[bool, str]:
    """Whether the resource is watched again by a process that lives, after so many watches; and in words."""
    watches = on("watch", resource)

    def again() -> bool:
        return len(w.proxy.seen(watches)) > opened and w.proxy.watching(resource) > 0

    # All of the watches start again, with a backoff.
    w.comes(lambda: again() or not w.running(), within=15.0)
    if not w.running():
        return False, f"the process ended: {w.last_words()}"
    return (True, "") if again() else (False, f"{resource} are not watched again")


@pytest.mark.parametrize("resource", ["agentsessions", "pods"])
@pytest.mark.parametrize("code", [410, 500, 504, 429, 403])
def test_an_error_event_is_survived(open_world: OpenWorld, record: Record, resource: str, code: int) -> None:
    w = open_world()
    w.until(lambda: w.proxy.watching(resource), "the watch")
    opened = len(w.proxy.seen(on("watch", resource)))
    w.proxy.inject(resource, error_event(code))
    ok, seen = watched_again(w, resource, opened)
    if ok:
        ok, seen = w.serves("next")
    record(f"7 ERROR event {code} in the watch of {resource}", "the next session has its pod", seen, ok)


@pytest.mark.parametrize("code", [410, 404, 403, 429, 500, 504])
def test_a_watch_that_cannot_be_opened_is_opened_later(open_world: OpenWorld, record: Record, code: int) -> None:
    w = open_world()
    w.until(lambda: w.proxy.watching("agentsessions"), "the watch")
    refused = on("watch", "agentsessions")
    w.proxy.use(Rule(refused, Answer(code), times=2))
    opened = len(w.proxy.seen(refused))
    w.proxy.close_watches("agentsessions")
    ok, seen = watched_again(w, "agentsessions", opened + 2)
    if ok:
        ok, seen = w.serves("next")
    record(f"7 {code} at the opening of a watch, twice", "the next session has its pod", seen, ok)
