"""A session: takes submissions, works on them one after the other, and stays consistent through crashes."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from agent.approval import ApprovalDecision
from agent.conversation import Conversation
from agent.events import Event, tool_output
from agent.question import CANCELLED, OpenQuestion, QuestionAnswer, problems_with
from session_runtime.session.agent_protocol import Agent, OpenAgent
from session_runtime.session.events import Draft, ends_submission, timestamp
from session_runtime.session.facts import NO_FACTS, Facts, Resumes
from session_runtime.session.journal import Change, Journal
from session_runtime.session.outcome import CUT_OFF, ON_REQUEST, SHUT_DOWN_EARLY, Ending, after_turn
from session_runtime.session.refusals import AnswerDoesNotFit, IdReused, QuestionClosed, QueueFull, SessionFinished
from session_runtime.session.snapshot import Snapshot
from session_runtime.session.store import Commit, Loaded, Submitted
from session_runtime.session.submission_queue import TURNS, SubmissionQueue
from session_runtime.session.submissions import (
    Answer,
    AnySubmission,
    Approval,
    Compact,
    Interrupt,
    Receipt,
    Shutdown,
    Submission,
    Undo,
    UserInput,
    canonical,
)
from session_runtime.wire import Activity, SessionConfig

logger = logging.getLogger(__name__)

MAX_QUEUE: Final = 100
"""Submissions that may wait."""

PROMPT_ID: Final = "prompt"
"""Id of the submission that the session's own prompt becomes."""

MAX_RESUMES: Final = 3
"""How many times an interrupted submission is resumed. The submission itself may be what ends the process."""

_SUBMISSION: Final[TypeAdapter[Submission]] = TypeAdapter(AnySubmission)


class Session:
    """Give it a journal that runs, `recover` it once, then `run` it to its end."""

    def __init__(
        self,
        config: SessionConfig,
        journal: Journal,
        loaded: Loaded,
        open_agent: OpenAgent,
        clock: Callable[[], datetime],
    ) -> None:
        self._config = config
        self._journal = journal
        journal.listeners.append(self._note)
        self._open_agent = open_agent
        self._clock = clock
        self._submissions = SubmissionQueue(loaded.submissions)
        self._restored = loaded.conversation
        self._agent: Agent | None = None
        self._submitted = asyncio.Event()
        self._problems: tuple[str, ...] = ()
        self._resuming = False
        self._withheld: list[Change] = []
        facts = loaded.facts
        self._interrupted = facts.interrupted
        self._resumes = facts.resumes or Resumes()
        self._created_at = facts.created_at or timestamp(clock())
        activity = facts.last_activity_time
        self._last_activity = clock() if activity is None else datetime.fromisoformat(activity)
        self._ending = facts.outcome
        self._finished = facts.finished is not None

    # -- what others see ---------------------------------------------------------------------------------------------

    @property
    def conversation(self) -> Conversation:
        return self._restored if self._agent is None else self._agent.conversation

    @property
    def finished(self) -> bool:
        """Its last event is on the disk."""
        return self._finished

    def submission(self, submission_id: str) -> Submitted | None:
        """What became of a submission; None when there never was one of this id."""
        return self._submissions.get(submission_id)

    @property
    def _questions(self) -> Sequence[OpenQuestion]:
        """What a person is asked in the call that runs now."""
        return () if self._agent is None else self._agent.questions

    def snapshot(self) -> Snapshot:
        conversation, running, questions = self.conversation, self._submissions.running, self._questions
        queued = len(self._submissions.queued)
        activity: Activity = "AwaitingApproval" if questions or conversation.pending else "Idle"
        return Snapshot(
            activity="Processing" if (running or queued) and not questions else activity,
            is_processing=running is not None,
            usage=conversation.usage,
            messages=conversation.messages,
            last_message=conversation.last_message,
            pending=conversation.pending,
            questions=tuple(questions),
            problems=self._problems,
            queued=queued,
            ended_turns=self._submissions.ended_turns,
            created_at=self._created_at,
            last_activity_time=self._last_activity,
            last_seq=self._journal.last_seq,
            ending=self._ending,
        )

    # -- taking submissions --------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> Receipt:
        """Take a submission; it is on the disk when this returns. Raises SubmissionRefused.

        The same id again changes nothing and is answered as the first was, also when the session has finished since.
        """
        submission_id = submission.id or f"sub_{uuid.uuid4().hex}"
        body = canonical(submission)
        known = self._submissions.get(submission_id)
        if known is not None:
            if not known.says(body):
                raise IdReused(submission_id)
            await self._journal.write(Change())  # the first one may still be on its way to the disk
            return self._receipt(submission_id)
        if self._ending is not None:
            raise SessionFinished(self._ending.message)
        if isinstance(submission, Interrupt):
            await self._accept_interrupt(submission_id, body)
        elif isinstance(submission, Answer):
            await self._accept_answer(submission_id, submission, body)
        else:
            if len(self._submissions.queued) >= MAX_QUEUE:
                raise QueueFull(submission_id)
            await self._accept(submission_id, submission.type, body)
            if isinstance(submission, UserInput) and self._agent is not None:
                for question in self._questions:  # something else was said instead, as with calls that wait for approval
                    await self._agent.answer(question.id, CANCELLED)
        return self._receipt(submission_id)

    async def _accept(self, submission_id: str, type_: str, body: str) -> None:
        submitted = Submitted(submission_id, type_, body, self._touch())
        self._submissions.add(submitted)
        self._submitted.set()
        if type_ == "shutdown":
            self._interrupt()
        await self._journal.write(Change(accepted=submitted))

    async def _accept_interrupt(self, submission_id: str, body: str) -> None:
        submitted = Submitted(submission_id, "interrupt", body, self._touch())
        self._submissions.add(submitted)
        self._submissions.end(submission_id, self._journal.last_seq)  # at once, so that it never waits in the queue
        target = self._submissions.next
        if target is not None:
            self._interrupted = target.id
        self._interrupt()
        facts = Facts(interrupted=self._interrupted)
        await self._journal.write(Change(accepted=submitted, ended=(submission_id,), facts=facts))

    async def _accept_answer(self, submission_id: str, submission: Answer, body: str) -> None:
        """Answer a question of the call that runs: at once, as the queue waits for that call."""
        question = next((asked for asked in self._questions if asked.id == submission.question_id), None)
        if question is None or self._agent is None:
            raise QuestionClosed(submission.question_id)
        answer = QuestionAnswer(submission.action, submission.content)
        problems = problems_with(question.question, answer)
        if problems:
            raise AnswerDoesNotFit(problems)
        submitted = Submitted(submission_id, "answer", body, self._touch())
        self._submissions.add(submitted)
        self._submissions.end(submission_id, self._journal.last_seq)
        await self._agent.answer(question.id, answer)
        await self._journal.write(Change(accepted=submitted, ended=(submission_id,)))

    def _interrupt(self) -> None:
        """End the running turn, if there is one."""
        if self._agent is not None:
            self._agent.interrupt()

    def _receipt(self, submission_id: str) -> Receipt:
        submitted = self._submissions.get(submission_id)
        assert submitted is not None  # noqa: S101 - it was added before
        state: Literal["queued", "running", "done"] = "running" if submitted.started else "queued"
        if submitted.ended_by is not None:
            state = "done"
        return Receipt(id=submission_id, type=submitted.type, state=state, position=self._submissions.position(submission_id))

    def _touch(self) -> str:
        self._last_activity = self._clock()
        return timestamp(self._last_activity)

    # -- a life ------------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Set right what the last process left unfinished, and take the prompt if this is the first one."""
        await self._journal.write(Change(facts=Facts(created_at=self._created_at)))
        running = self._submissions.running
        if running is not None:
            await self._recover(running)
        if self._config.prompt and self._submissions.get(PROMPT_ID) is None:
            prompt = UserInput.model_construct(text=self._config.prompt)
            await self._accept(PROMPT_ID, "user_input", canonical(prompt))

    async def run(self) -> None:
        """Work on submissions until the session is finished. A failure that comes out of this ends the process.

        Cancelling it is like a kill: the next process resumes from there.
        """
        if self._ending is None:
            async with self._open_agent(self._emit, self._restored) as opened:
                self._agent = opened.agent
                await self._emit(Event("ready", dict(opened.ready)))
                while self._ending is None:
                    waiting = self._submissions.next
                    if waiting is not None:
                        await self._execute(waiting)
                    else:
                        self._submitted.clear()
                        await self._submitted.wait()
                self._restored, self._agent = self._agent.conversation, None
        if not self._finished:
            assert self._ending is not None  # noqa: S101 - what the loop above waits for
            await self._finish(self._ending)

    async def put_down(self) -> None:
        """Call it after `run` was cancelled to stop the process: the resume by the next process then does not count."""
        self._resumes = Resumes()
        await self._journal.write(Change(facts=Facts(resumes=self._resumes)))

    async def _recover(self, running: Submitted) -> None:
        """The last process exited in the middle of this submission: resume it, unless that was tried too many times."""
        await self._retract_message(running)
        count = self._resumes.times + 1 if self._resumes.submission_id == running.id else 1
        if count > MAX_RESUMES:
            await self._cut_off(running)
        else:
            self._resumes = Resumes(running.id, count)
            self._resuming = True
            await self._journal.write(Change(facts=Facts(resumes=self._resumes)))

    async def _retract_message(self, running: Submitted) -> None:
        """Retract the pieces of a message that was cut off: the model is called for it again."""
        for frame in await self._journal.read(self._journal.last_seq - 1):
            last = json.loads(frame.body)
            if last["type"] == "assistant_chunk" and "text" in last["data"]:
                data = {"message_id": last["data"]["message_id"], "superseded": True}
                await self._journal.write(Change(self._journal.draft("assistant_chunk", data, running.id)))

    async def _execute(self, submitted: Submitted) -> None:
        resuming, self._resuming = self._resuming, False
        self._submissions.start(submitted.id)
        try:
            await self._perform(submitted, resuming)
        except Exception as error:
            logger.exception("submission %s failed", submitted.id)
            await self._emit(Event("error", {"kind": "internal", "message": f"{type(error).__name__}: {error}"}))
        if self._submissions.is_open(submitted.id) and self._ending is None:
            if resuming:  # the last process exited when the turn was closed, and before the event that reports it
                by_user = submitted.id == self._interrupted
                reason = "by the user" if by_user else "the session's container exited at the end of this turn"
                await self._emit(Event("interrupted", {"reason": reason}))
                return
            message = f"{submitted.type} ended without an event of its own"
            await self._emit(Event("error", {"kind": "internal", "message": message}))

    async def _perform(self, submitted: Submitted, resuming: bool) -> None:
        agent = self._agent
        assert agent is not None  # noqa: S101 - only called from run
        submission = _SUBMISSION.validate_json(submitted.body)
        match submission:
            case UserInput() | Approval() if resuming:
                await self._work(submitted, agent.resume())
            case UserInput():
                await self._work(submitted, agent.run_turn(submission.text))
            case Approval():
                decisions = [ApprovalDecision(**decision.model_dump()) for decision in submission.decisions]
                decisions.sort(key=lambda decision: not decision.approved)  # the last one about a call holds: a denial
                await self._work(submitted, agent.decide(decisions))
            case Undo():
                await agent.undo()
            case Compact():
                await agent.compact()
            case Shutdown():
                self._ending = SHUT_DOWN_EARLY if self._config.mode == "Task" else ON_REQUEST

    async def _work(self, submitted: Submitted, turn: Coroutine[Any, Any, object]) -> None:
        """Work on a turn. If it was interrupted before this process worked on it, it begins and is interrupted at once, so that
        the agent closes the conversation as after every interrupt."""
        working = asyncio.create_task(turn)
        try:
            if submitted.id == self._interrupted:
                await asyncio.sleep(0)  # the turn begins within one step of the loop
                self._interrupt()
            await working
        finally:
            working.cancel()
        if submitted.id == self._interrupted and self._agent is not None:
            await self._agent.abandon("by the user")  # does nothing, unless the turn asked before it saw the interrupt

    async def _finish(self, ending: Ending) -> None:
        """Write the session's last events; they end all open submissions."""
        reason = {"reason": "the session finished before this was done"}
        shutdowns = tuple(waiting.id for waiting in self._submissions.open if waiting.type == "shutdown")
        for waiting in self._submissions.open:
            if waiting.id not in shutdowns:
                draft = self._journal.draft("interrupted", reason, waiting.id)
                await self._journal.write(Change(draft=draft, ended=(waiting.id,)))
        data = {"reason": ending.message, "outcome": ending.outcome}
        draft = self._journal.draft("shutdown", data, next(iter(shutdowns), None))
        facts = Facts(outcome=ending, finished=timestamp(self._clock()))
        await self._journal.write(Change(draft=draft, ended=shutdowns, facts=facts))
        self._finished = True

    async def _cut_off(self, running: Submitted) -> None:
        """End what the last process was working on: its calls get their results, and the turn its event."""
        conversation = self._restored
        for begun in conversation.begun_calls:
            conversation = conversation.with_result_of(begun, CUT_OFF)
            output = tool_output(begun.call, CUT_OFF, False, begun.parent)
            draft = self._journal.draft("tool_output", output, running.id)
            await self._journal.write(Change(draft=draft, conversation=conversation))
        self._restored = conversation.closed(CUT_OFF)
        error = {"kind": "cut_off", "message": CUT_OFF}
        draft = self._journal.draft("error", error, running.id)
        facts = self._turn_facts("error", error) if running.type in TURNS else NO_FACTS
        change = Change(draft, self._restored, ended=(running.id,), facts=facts)
        await self._journal.write(change)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _emit(self, event: Event) -> None:
        """Take an event of the agent; but for pieces of a message it is durable when this returns, together with the
        conversation after it, and with its effect on the submission and the session."""
        problems = event.data.get("problems")
        if isinstance(problems, list):
            self._problems = tuple(map(str, problems))
        running, data = self._submissions.running if event.type not in ("ready", "tools_changed") else None, event.data
        if event.type in ("tools_changed", "question", "question_closed"):
            # It comes at any moment: the conversation may be ahead of the event that tells of it, and stays as it is stored.
            draft = self._journal.draft(event.type, event.data, None if running is None else running.id)
            await self._journal.write(Change(draft))
            return
        shutting_down = any(waiting.type == "shutdown" for waiting in self._submissions.queued)
        if event.type == "interrupted" and shutting_down:
            data = {"reason": "the session is being shut down"}
        draft = self._journal.draft(event.type, data, None if running is None else running.id)
        if event.type == "approval_required" and running is not None and running.id == self._interrupted:
            return  # the question is withdrawn: `_work` abandons it
        if event.type == "assistant_chunk":
            self._last_activity = draft.time
            self._journal.chunk(draft)
            return
        facts = NO_FACTS if event.type == "ready" else Facts(last_activity_time=self._touch())
        if running is not None and running.type == "undo" and not ends_submission("undo", event.type):
            # Half an undo must not be durable: the next process would repeat it, and take back a second turn.
            self._withheld.append(Change(draft))
            return
        started: tuple[str, ...] = ()
        ended: tuple[str, ...] = ()
        if running is not None:
            started = (running.id,)
            if ends_submission(running.type, event.type):
                ended = (running.id,)
                if running.type in TURNS and not (event.type == "interrupted" and shutting_down):
                    facts = facts.updated(self._turn_facts(event.type, data))
        withheld, self._withheld = self._withheld, []
        await self._journal.write(*withheld, Change(draft, self.conversation, started=started, ended=ended, facts=facts))

    def _note(self, commit: Commit, _: Sequence[Draft]) -> None:
        """Keep the queue at what is durable, before anyone sees an event that ends a submission."""
        for submission_id, seq in commit.ended.items():
            if self._submissions.is_open(submission_id):
                self._submissions.end(submission_id, seq)

    def _turn_facts(self, event_type: str, data: Mapping[str, Any]) -> Facts:
        """What a turn's last event means for the session. Once that is its end, it takes no more submissions."""
        ending = after_turn(self._config.mode, self._config.agent.model, event_type, data)
        if ending is None:
            return NO_FACTS
        self._ending = ending
        return Facts(outcome=ending)
