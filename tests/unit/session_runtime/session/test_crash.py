"""`kill -9` before and after each transaction of a conversation: nothing accepted is lost, nothing finished is done twice,
and the conversation resumes as if nothing had happened.

A few moments, spread over the conversation; every one with AGENTSESSION_CRASH_POINTS=all (`make test-crash-runtime`).
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from agent.loop.agent import IN_FLIGHT
from session_runtime.session.store import Store
from session_runtime.wire import AgentSettings, ApprovalRule
from support.runtime.harness import asking
from support.runtime.story import LONG, MOMENTS, Plan, Story, chosen, live, moment_of
from support.runtime.volume import fill, small_volume

pytestmark = pytest.mark.anyio

MEGABYTES = 64

TALK = Plan(
    answers={
        "Go.": [
            {
                "text": "First I look.",
                "calls": [["bash", {"command": "echo one >> log"}], ["bash", {"command": "echo two >> log"}]],
                "ids": ["one", "two"],
            },
            {"text": f"Looked. {LONG}", "piece": 100, "delay": 0.005},
        ],
        "and more?": [
            {"calls": [["bash", {"command": "echo three >> log"}]], "ids": ["three"]},
            {"text": f"Done, and more. {LONG}", "piece": 500},
        ],
        "again?": [
            {"calls": [["bash", {"command": "echo four >> log"}]], "ids": ["four"]},
            {"text": "Once more."},
        ],
    },
    submissions=(
        {"id": "more", "type": "user_input", "text": "and more?"},
        {"id": "yes", "type": "approval", "decisions": [{"tool_call_id": "three", "approved": True}]},
        {"id": "shorter", "type": "compact"},
        {"id": "again", "type": "user_input", "text": "again?"},
        {"id": "back", "type": "undo"},
    ),
    ends=(
        ("prompt", "turn_complete"),
        ("more", "approval_required"),
        ("yes", "turn_complete"),
        ("shorter", "compacted"),
        ("again", "turn_complete"),
        ("back", "undo_complete"),
    ),
    session={"prompt": "Go.", "agent": asking("*three*")},
)

TAKEN_BACK = Plan(
    answers={
        "Go.": [
            {"calls": [["research", {"task": "Look around."}]], "ids": ["first"]},
            {"text": "Looked around."},
        ],
        "Look around.": [
            {"calls": [["list", {}]], "ids": ["around"]},
            {"text": "Nothing there."},
        ],
        "deeper": [
            {"calls": [["research", {"task": "Look at the secret."}]], "ids": ["second"]},
            {"text": "never said"},
        ],
        "Look at the secret.": [
            {"calls": [["list", {}], ["read", {"path": "secret"}]], "ids": ["inside", "secret"]},
            {"text": "never said"},
        ],
        "hang": [
            {"calls": [["bash", {"command": f"echo hang{number} >> log; sleep 600"}]], "ids": [f"hang{number}"]}
            for number in range(4)
        ],
        "again": [
            {"calls": [["bash", {"command": "echo again >> log"}]], "ids": ["again"]},
            {"text": "Done."},
        ],
    },
    submissions=(
        {"id": "deeper", "type": "user_input", "text": "deeper"},
        {"id": "back", "type": "undo"},
        {"id": "hang", "type": "user_input", "text": "hang"},
        {"id": "stop", "type": "interrupt"},
        {"id": "back-again", "type": "undo"},
        {"id": "again", "type": "user_input", "text": "again"},
    ),
    awaited={"stop": ("tool_call", "hang")},
    ends=(
        ("prompt", "turn_complete"),
        ("deeper", "approval_required"),
        ("back", "undo_complete"),
        ("hang", "interrupted"),
        ("back-again", "undo_complete"),
        ("again", "turn_complete"),
    ),
    session={
        "prompt": "Go.",
        "agent": AgentSettings(
            model="scripted",
            approval_policy=(ApprovalRule(tool="read", arguments={"path": "*secret*"}, action="Ask"),),
        ),
    },
)
"""A sub-agent that ends, and one whose call waits for approval when its turn is taken back; a turn that is interrupted."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Of the module, as the uncrashed stories are."""
    return "asyncio"


async def without_a_crash(plan: Plan) -> Story:
    with tempfile.TemporaryDirectory(prefix="as-") as folder:
        story = await live(plan, Path(folder))
    assert not story.crashed
    assert story.moments < MOMENTS
    assert story.ends == list(plan.ends)
    return story


@pytest.fixture(scope="module")
async def talk() -> Story:
    story = await without_a_crash(TALK)
    assert story.done == ["one", "two", "three", "four"]
    return story


@pytest.fixture(scope="module")
async def taken_back() -> Story:
    story = await without_a_crash(TAKEN_BACK)
    assert story.done in (["hang0", "again"], ["again"])  # an interrupt may come before its command has done anything
    return story


def check_talk(story: Story, uncrashed: Story) -> None:
    assert [e.seq for e in story.events] == list(range(1, len(story.events) + 1))
    assert len(story.lost) <= 1
    assert story.told(set()) == uncrashed.told(story.lost)
    assert story.messages == uncrashed.kept(story.lost)
    assert [word for word in story.done if word not in story.lost] == [w for w in uncrashed.done if w not in story.lost]
    assert len(story.done) == len(set(story.done))


@pytest.mark.parametrize("choice", chosen())
async def test_a_kill_at_any_moment_is_survived(short_path: Path, talk: Story, choice: float) -> None:
    moment = moment_of(choice, talk)
    if moment > talk.moments:
        pytest.skip(f"the conversation has {talk.moments} moments")
    story = await live(TALK, short_path, CRASH_AT=str(moment))
    check_talk(story, talk)
    if not story.crashed:
        pytest.skip(f"this time the conversation had no moment {moment}")


@pytest.mark.parametrize("choice", chosen(2))
async def test_a_kill_on_a_full_volume_is_survived(short_path: Path, talk: Story, choice: float) -> None:
    """Files are elsewhere here, so that the calls find room: it is the database that has none but its reserve."""
    moment = moment_of(choice, talk)
    if moment > talk.moments:
        pytest.skip(f"the conversation has {talk.moments} moments")
    with small_volume(short_path / "v", MEGABYTES) as volume:
        Store(volume).close()
        fill(volume)
        (short_path / "state").symlink_to(volume)
        story = await live(TALK, short_path, CRASH_AT=str(moment))
        with closing(Store(volume)) as store:
            assert store.load().last_seq == story.events[-1].seq
    check_talk(story, talk)
    if not story.crashed:
        pytest.skip(f"this time the conversation had no moment {moment}")


@pytest.mark.parametrize("choice", chosen(4))
async def test_a_kill_around_an_interrupt_or_an_undo_is_survived(short_path: Path, taken_back: Story, choice: float) -> None:
    """A turn is interrupted once, and not the next one; a turn with an open sub-agent is taken back whole, and no other."""
    moment = moment_of(choice, taken_back)
    if moment > taken_back.moments:
        pytest.skip(f"the conversation has {taken_back.moments} moments")
    story = await live(TAKEN_BACK, short_path, CRASH_AT=str(moment))
    assert [e.seq for e in story.events] == list(range(1, len(story.events) + 1))
    assert story.ends == taken_back.ends
    assert [e.data["text"] for e in story.events if e.type == "undo_complete"] == ["deeper", "hang"]
    assert story.messages == taken_back.kept(story.lost)
    assert len(story.done) == len(set(story.done)), "no call runs twice"
    begun = [e.data["tool_call_id"] for e in story.events if e.type == "tool_call"]
    ended = [e.data["tool_call_id"] for e in story.events if e.type == "tool_output"]
    assert sorted(begun) == sorted(ended), "each call that began has one result"
    assert IN_FLIGHT not in [m["content"] for m in story.messages if m.get("tool_call_id") == "first"], "a sub-agent continues"
    if not story.crashed:
        pytest.skip(f"this time the conversation had no moment {moment}")
