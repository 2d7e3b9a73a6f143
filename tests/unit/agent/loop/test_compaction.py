from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.conversation import Conversation
from agent.loop.compaction import choose_cut, first_piece, summary_of, too_long_message, total_tokens
from agent.messages import Message, ToolCall, Usage
from agent.model.failure import ContextOverflowError
from agent.testing import Reply, calls, fails, says
from agent.tools.tool import Tool, parameters
from support.agent.stage import stage
from support.agent.validity import check_order, check_request

pytestmark = pytest.mark.anyio


def said(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def answered(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def worked(call_id: str, *outputs: str) -> tuple[Message, ...]:
    wanted = tuple(ToolCall(f"{call_id}-{n}", "look", "{}") for n in range(len(outputs)))
    results = (Message("tool", output, tool_call_id=f"{call_id}-{n}") for n, output in enumerate(outputs))
    return (Message("assistant", "", wanted), *results)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    text = st.text("ab \n", max_size=400).map("a{}".format)
    messages = said(draw(text))
    for number in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["said", "answered", "worked", "worked"]))
        if kind == "said":
            messages += said(draw(text))
        elif kind == "answered":
            messages += answered(draw(text))
        else:
            messages += worked(str(number), *draw(st.lists(text, min_size=1, max_size=3)))
    return messages


@given(conversations(), st.integers(0, 500))
def test_a_cut_keeps_the_required_messages_and_whole_exchanges(messages: tuple[Message, ...], tail: int) -> None:
    cut = choose_cut(messages, tail)
    parts = (cut.first, cut.early, cut.said, cut.late, cut.tail)
    assert sum(parts, ()) == messages
    last_said = [m for m in messages if m.from_person][-1]
    assert last_said in (*cut.first, *cut.said, *cut.tail)
    assert not any(message.from_person for message in cut.late)
    for part in parts:
        check_order(part)
    assert cut.tail or len(messages) == 1


@given(conversations(), st.text(max_size=5000))
def test_a_summary_is_shorter_than_what_it_stands_for(part: tuple[Message, ...], summary: str) -> None:
    message = summary_of(part, summary)
    assert message.origin == "summary"
    if total_tokens(part) > 400:
        assert len(message.content) < sum(len(m.content) for m in part) + 20 * len(part)


def long_conversation() -> Conversation:
    messages = said("first wish")
    for number in range(8):
        messages += worked(f"w{number}", "x" * 4000) + answered(f"found {number}") + said(f"wish {number}")
    messages += worked("last", "y" * 1000) + answered("the last answer")
    return Conversation(messages)


async def test_compaction_by_hand_keeps_first_and_last_and_shrinks() -> None:
    before = long_conversation()
    s = stage(says("SUMMARY of it all"), conversation=before)
    assert (await s.agent.compact()).status == "complete"
    after = s.agent.conversation.messages
    check_order(after)
    assert after[0].content == "first wish"
    assert after[-4:] == before.messages[-4:]
    assert "SUMMARY" in after[1].content
    assert total_tokens(after) < total_tokens(before.messages)
    assert s.events[-1].type == "compacted"
    assert s.events[-1].data["tokens_after"] == total_tokens(after)
    assert s.agent.usage.llm_calls == 1  # what the summary cost is counted


UNUSABLE = [
    says(""),
    says(" \n"),
    says("", finish_reason="content_filter"),
    says("half of", finish_reason="content_filter"),
    says("half of", finish_reason="length"),
    calls(("look", {}), text="I will look first."),
]


@pytest.mark.parametrize("unusable", UNUSABLE)
async def test_an_unusable_summary_is_asked_for_again(unusable: Reply) -> None:
    s = stage(unusable, unusable, says("SUMMARY of it all"), conversation=long_conversation())
    assert (await s.agent.compact()).status == "complete"
    assert "SUMMARY" in s.agent.conversation.messages[1].content
    assert [d["status"] for d in s.data("processing")] == ["retrying", "retrying"]


@pytest.mark.parametrize("unusable", UNUSABLE)
async def test_without_a_usable_summary_results_are_cut_and_nothing_is_lost(unusable: Reply) -> None:
    before = long_conversation()
    s = stage(*[unusable] * 3, conversation=before)
    assert (await s.agent.compact()).status == "complete"
    after = s.agent.conversation.messages
    assert len(after) == len(before.messages)
    assert [m.content for m in after if m.role != "tool"] == [m.content for m in before.messages if m.role != "tool"]
    assert total_tokens(after) < total_tokens(before.messages)
    talk = Conversation(said("hi") + answered("word " * 400) * 3)
    s = stage(*[unusable] * 3, conversation=talk)
    outcome = await s.agent.compact()
    assert outcome.status == "error"
    assert "no usable text" in str(outcome.message)
    assert s.agent.conversation.messages == talk.messages


async def test_undo_after_compaction_stops_at_the_summary() -> None:
    before = long_conversation()
    s = stage(says("SUMMARY"), conversation=before)
    await s.agent.compact()
    undone = []
    while await s.agent.undo():
        undone.append(s.events[-1].data["text"])
    assert undone[0] == "wish 7"
    assert "first wish" not in undone
    assert s.agent.conversation.messages[1].origin == "summary"


async def test_it_compacts_by_itself_inside_one_long_turn() -> None:
    async def dig(_: dict[str, Any]) -> str:
        return "soil " * 500

    digs = [calls(("dig", {"n": n}), usage=Usage()) for n in range(6)]  # without the provider's counts: by estimate
    s = stage(
        *digs[:5],
        says("dug five holes"),
        *digs[5:],
        says("done"),
        tools=(Tool("dig", "", parameters(n={"type": "integer"}), dig),),
        context_window=4000,
    )
    outcome = await s.agent.run_turn("dig a well")
    assert outcome.message == "done", s.events[-1]
    assert s.data("compacted")
    assert s.agent.conversation.messages[0].content == "dig a well"
    for request in s.model.requests:
        check_request(request)
    assert await s.agent.undo()
    assert s.agent.conversation.messages == ()  # all of it came of that one wish


async def test_an_overflow_compacts_while_that_helps_and_then_is_an_error() -> None:
    overflow = fails(ContextOverflowError("too long"))
    s = stage(overflow, says("SUMMARY"), says("fine"), conversation=long_conversation())
    assert (await s.agent.run_turn("go on")).message == "fine"
    s = stage(overflow, says("SUMMARY"), *[overflow] * 30, conversation=long_conversation())
    assert (await s.agent.run_turn("go on")).status == "error"
    [error] = s.data("error")
    assert error["kind"] == "context_overflow"
    assert "cannot be made any shorter. too long" in error["message"]


async def test_what_cannot_be_shortened_is_an_error_and_stays() -> None:
    s = stage(conversation=Conversation(said("hi") + answered("hello")))
    assert (await s.agent.compact()).status == "error"
    assert s.data("error")[0]["kind"] == "compaction"
    assert len(s.agent.conversation.messages) == 2


async def test_a_last_exchange_that_is_too_long_has_its_results_cut() -> None:
    before = Conversation(said("look") + worked("w", "z" * 20_000, "z" * 20_000))
    s = stage(conversation=before)
    assert (await s.agent.compact()).status == "complete", s.events
    assert total_tokens(s.agent.conversation.messages) < 2000
    check_order(s.agent.conversation.messages)


async def test_too_long_a_first_message_is_sent_once_all_the_same() -> None:
    s = stage(fails(ContextOverflowError("too long")), context_window=1000)
    assert (await s.agent.run_turn("word " * 2000)).status == "error"
    assert len(s.model.requests) == 1


@given(st.text("ab \n", min_size=1, max_size=2000), st.integers(1, 300))
def test_pieces_of_a_text_are_the_text(text: str, tokens: int) -> None:
    found, rest = [], text
    while rest:
        piece, rest = first_piece(rest, tokens, 10_000)
        assert piece
        found.append(piece)
    assert "".join(found) == text
    assert len(first_piece("a" * 9999, 10, 2)[1]) < 200  # what is too much for all pieces is cut


def test_a_long_first_message_is_kept_only_while_it_is_last() -> None:
    long = said("word " * 1000)
    assert choose_cut(long + answered("a"), 100).first == long
    cut = choose_cut(long + answered("a") + said("b"), 100)
    assert (cut.first, cut.early, cut.tail) == ((), long, answered("a") + said("b"))
    cut = choose_cut(long + answered("a") + said("b") + worked("c", "x" * 1000) + worked("d", "x" * 1000), 100)
    assert (cut.first, cut.said, cut.late) == ((), said("b"), worked("c", "x" * 1000))
    assert too_long_message(long + answered("a")) is not None
    assert too_long_message(said("b") + worked("c", "x" * 1000)) is None
    assert too_long_message(answered("a")) is None
