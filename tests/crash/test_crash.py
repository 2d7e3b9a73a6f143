"""SIGKILL at any write of the operator, before or after it reaches the server: the end is that of a run without a crash."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from support.api import JSON, Api
from support.crash.story import QUOTAS, SECOND_ACT, live, set_up, tear_down
from support.faults.judge import History
from support.faults.quotas import caps_of
from support.faults.request import write
from support.faults.rules import ANSWER, Drop, Kill, Rule
from support.faults.world import World, world

SEED = 11
"""Of the moments that `make test` chooses; AGENTSESSION_CRASH_POINTS is "all" or another number of them."""
SAMPLE = 2
MOST_WRITES = 480
"""More than a run without a crash makes; moments after its last write are skipped."""
DEADLINE = 120.0
"""Seconds for a whole story, a takeover of the lease included."""

Side = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Run:
    """A story that has ended."""

    end: Mapping[str, JSON]
    history: History
    writes: int
    size: int


@contextmanager
def opened(api: Api, kubeconfig: Path, directory: Path) -> Iterator[World]:
    name = f"crash-{uuid.uuid4().hex[:8]}"
    with world(api, kubeconfig, directory, name, quotas=QUOTAS, start=False) as w:
        set_up(w)
        try:
            yield w
        finally:
            tear_down(w)


def run(w: World) -> Run:
    w.operator.start()
    story = live(w, within=DEADLINE)
    if not w.operator.is_alive:  # killed at one of the last writes
        w.operator.start(ready=False)
    w.until(w.operator.is_ready, "the lead of an operator", within=30)
    w.comes(lambda: False, within=1.0)  # nothing is written any more, and if it is, the judge sees it
    return Run(story.end(), w.history(), len(w.proxy.writes()), story.size)


def judge(result: Run) -> None:
    """What holds at every event, and at the end."""
    history = result.history
    assert history.breaches(*caps_of(QUOTAS)) == []
    assert history.doubled() == {}
    assert history.orphans() == []
    assert history.finalizers_left() == []
    assert history.started_twice() == {}
    names = {uid: session.name for uid, session in history.end().sessions.items()}
    with_pods = {names[uid] for uid in history.pods_ever()}
    assert [name for name in SECOND_ACT if name in with_pods] == ["coming-pia", "coming-quin"], "the others are turned away"


@pytest.fixture(scope="session")
def uncrashed(api: Api, operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The story without a crash."""
    with opened(api, operator_kubeconfig, tmp_path_factory.mktemp("uncrashed")) as w:
        result = run(w)
    judge(result)
    print(f"the story has {result.writes} writes: {2 * result.writes} moments at which to kill the operator")
    assert result.size >= 30
    assert result.writes < MOST_WRITES
    return result


def chosen() -> list[tuple[float, Side]]:
    """Moments as numbers of writes, or as parts of all writes."""
    wanted = os.environ.get("AGENTSESSION_CRASH_POINTS", str(SAMPLE))
    if wanted == "all":
        return [(float(number), side) for number in range(1, MOST_WRITES) for side in ("before", "after")]
    seeded, count = random.Random(SEED), int(wanted)
    return [((part + seeded.random()) / count, "before" if part % 2 else "after") for part in range(count)]


@pytest.mark.parametrize(("choice", "side"), chosen())
def test_a_kill_at_any_write_changes_nothing(
    api: Api, operator_kubeconfig: Path, tmp_path: Path, uncrashed: Run, choice: float, side: Side
) -> None:
    number = int(choice) if choice >= 1 else 1 + int(choice * uncrashed.writes)
    if number > uncrashed.writes:
        pytest.skip(f"the story has {uncrashed.writes} writes")
    steps = (Kill(), Drop()) if side == "before" else (Kill(at=ANSWER),)
    with opened(api, operator_kubeconfig, tmp_path) as w:
        w.proxy.use(Rule(write(number), *steps, times=1))
        crashed = run(w)
        if not any(exchange.request.write == number for exchange in w.proxy.exchanges):
            pytest.skip(f"this run has {crashed.writes} writes")  # the order of events decides how many statuses are merged
    assert w.operator.starts == 2
    judge(crashed)
    assert crashed.end == uncrashed.end
