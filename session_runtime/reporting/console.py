"""What the container prints: the conversation on standard output, the runtime's own troubles on standard error."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Final, TextIO

from agent.redaction import Redactor
from session_runtime.reporting import transcript
from session_runtime.session.events import Draft

MAX_LINES: Final = 10_000
"""Lines that may wait for a log that does not move; further ones are dropped."""


class Console:
    """Prints events from a thread of its own: a log that does not move must not stop the session."""

    def __init__(self, redactor: Redactor, stream: TextIO) -> None:
        self._redactor = redactor
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_LINES)
        self._thread = threading.Thread(target=self._print, name="console", daemon=True)
        self._thread.start()

    def show(self, drafts: Sequence[Draft]) -> None:
        """Print what these events add to the conversation, soon."""
        for draft in drafts:
            line = transcript.line(draft)
            if line is not None:
                self._put(line)

    def say(self, who: str, text: str, time: datetime) -> None:
        """Print something that is no event of the session."""
        self._put(transcript.entry(time, who, text))

    def close(self, timeout: float) -> None:
        """Print what is left, within so many seconds."""
        if not self._lines.full():
            self._lines.put_nowait(None)
            self._thread.join(timeout)

    def _put(self, line: str) -> None:
        if not self._lines.full():
            self._lines.put_nowait(self._redactor.text(line))

    def _print(self) -> None:
        while (line := self._lines.get()) is not None:
            print(line, file=self._stream, flush=True)


class _RedactingFormatter(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))


def set_up_logging(redactor: Redactor) -> None:
    """Warnings and errors of this process to standard error, without secrets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_RedactingFormatter(redactor))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
