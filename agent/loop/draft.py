"""An answer that is being written, perhaps in several parts and tries."""

from __future__ import annotations

import uuid

from agent.messages import Message
from agent.model.answer import Answer
from agent.redaction import RedactedStream, Redactor

MAX_CONTINUATIONS = 3
"""How many times an answer that reached the limit for one answer is continued."""

CONTINUE = "[Your answer reached the limit for one answer. Continue exactly where it ends. Do not repeat anything.]"
CUT = "\n[The answer ends here: it reached the limit for one answer.]"


class Draft:
    """The parts of one answer, and what of it has been shown under which id."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._said: Answer | None = None
        """The parts that are complete, as one answer."""
        self._continuations = 0
        self._superseded = False
        self.message_id = uuid.uuid4().hex
        self.shown: RedactedStream = redactor.stream()

    def with_part(self, part: Answer) -> Answer:
        """The parts so far and this one as one answer."""
        return part if self._said is None else self._said.continued_by(part)

    def continues(self, answer: Answer) -> bool:
        """Whether another part is to be asked for behind this answer. One that has its end, or never ends, is marked or not."""
        if answer.finish_reason not in ("length", "pause_turn") or answer.tool_calls:
            return False
        if self._continuations == MAX_CONTINUATIONS:
            answer.text += CUT
            return False
        self._continuations += 1
        self._said = answer
        return True

    def request_tail(self) -> tuple[Message, ...]:
        """What follows the conversation in the request for the next part."""
        if self._said is None:
            return ()
        return (Message("assistant", self._redactor.text(self._said.text)), Message("user", CONTINUE, origin="note"))

    def supersede(self) -> None:
        """The message that was shown is discarded; the next try is another one."""
        self.message_id = uuid.uuid4().hex
        self.shown = self._redactor.stream()
        self._superseded = True

    def again(self) -> str:
        """What has to be shown again of the complete parts, because the message was superseded."""
        if not self._superseded or self._said is None:
            return ""
        self._superseded = False
        return self.shown.feed(self._said.text)
