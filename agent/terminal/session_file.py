"""A conversation in a file, to continue it later, also after a crash at any point."""

from __future__ import annotations

import os
from pathlib import Path

from agent.conversation import Conversation


class SessionFileError(Exception):
    """The file cannot be used; the message names it and says why, in one line."""


class SessionFile:
    """One conversation's file, readable for its owner only. Write it after every step, not only at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved: Conversation | None = None

    def load(self) -> Conversation | None:
        """The conversation of an earlier run, None when there was none. Raises SessionFileError."""
        if self.path.exists() and not self.path.is_file():  # a device or a pipe may have no end
            raise SessionFileError(f"{self.path} is not a file; name another one")
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SessionFileError(f"{self.path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SessionFileError(f"{self.path} is not a session file (it is no text); name another one") from error
        try:
            return Conversation.from_json(text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SessionFileError(f"{self.path} is not a session file of this version; name another one") from error

    def save(self, conversation: Conversation) -> None:
        """Keep the conversation, unless it is what was kept last. Raises SessionFileError."""
        if conversation is self._saved:
            return
        temporary = self.path.with_name(f"{self.path.name}.new")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
                stream.write(conversation.to_json())
            temporary.replace(self.path)
        except OSError as error:
            raise SessionFileError(f"{self.path} cannot be written: {error.strerror}") from error
        self._saved = conversation
