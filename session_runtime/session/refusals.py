"""Why a session does not take a submission."""

from __future__ import annotations

from collections.abc import Mapping


class SubmissionRefused(Exception):
    """The session does not take this submission."""


class SessionFinished(SubmissionRefused):
    """The session is over, or about to be."""


class IdReused(SubmissionRefused):
    """The id belongs to a submission that says something else."""


class QueueFull(SubmissionRefused):
    """Too many submissions wait already."""


class QuestionClosed(SubmissionRefused):
    """No question with this id is open: it was answered, or its call has ended."""


class AnswerDoesNotFit(SubmissionRefused):
    """The answer does not fit the question."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("the answer does not fit the question")
        self.problems = problems
        """By the fields of the form; "" stands for all of it."""
