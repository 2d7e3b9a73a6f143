"""What a caller may ask of a session: the bodies of `POST /v1/submissions`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TEXT: Final = 100_000
"""Characters of one input; the same as a session's prompt may have."""

SubmissionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


class _Submission(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: SubmissionId | None = Field(
        default=None,
        description="Chosen by the caller, so that sending it again does nothing twice; one is made up when it is missing.",
    )


class UserInput(_Submission):
    """Something the user says; a turn works on it."""

    type: Literal["user_input"] = "user_input"
    text: str = Field(min_length=1, max_length=MAX_TEXT, description="What the user says.")


class Decision(BaseModel):
    """A person's word on one tool call that waits for approval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool_call_id: str = Field(min_length=1, max_length=256)
    approved: bool
    feedback: str | None = Field(default=None, max_length=MAX_TEXT, description="Told to the model.")
    arguments: dict[str, Any] | None = Field(
        default=None, description="Run the call with these arguments in place of the model's."
    )


class Approval(_Submission):
    """Decides on the calls that wait for approval, and goes on with the turn. A call without a decision is denied."""

    type: Literal["approval"] = "approval"
    decisions: list[Decision] = Field(max_length=256)


class Undo(_Submission):
    """Takes back the last input and all that came of it in the conversation, not in the world."""

    type: Literal["undo"] = "undo"


class Compact(_Submission):
    """Shortens the conversation now."""

    type: Literal["compact"] = "compact"


class Interrupt(_Submission):
    """Ends the turn that is being worked on. It does not queue: it takes effect at once, or there is nothing to end."""

    type: Literal["interrupt"] = "interrupt"


class Shutdown(_Submission):
    """Ends the session: interrupts the turn, drops what is queued, reports, and ends the process."""

    type: Literal["shutdown"] = "shutdown"


Submission = UserInput | Approval | Undo | Compact | Interrupt | Shutdown

AnySubmission = Annotated[Submission, Field(discriminator="type")]


class Receipt(BaseModel):
    """A submission was taken, and is on the disk."""

    id: str
    type: str
    state: Literal["queued", "running", "done"]
    position: int | None = Field(
        default=None, description="How many submissions are run before this one; null once it is done."
    )


def canonical(submission: Submission) -> str:
    """The submission as JSON without its id; equal submissions have equal text."""
    return submission.model_dump_json(exclude={"id"}, exclude_defaults=False, ensure_ascii=True)
