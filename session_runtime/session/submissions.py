"""What a caller may ask of a session: the bodies of `POST /v1/submissions`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

MAX_TEXT: Final = 100_000
"""Characters of one input; the same as a session's prompt may have."""

MAX_DEPTH: Final = 100
"""Levels of objects and lists in a call's arguments; what writes JSON gives up at some hundred."""


def _storable(arguments: dict[str, Any]) -> dict[str, Any]:
    """Python reads JSON that cannot be written again: NaN, numbers beyond all floats, and halves of characters."""
    if not _within(arguments, MAX_DEPTH):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    try:
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a surrogate pair, which UTF-8 cannot carry") from error
    except ValueError as error:
        raise ValueError("a number is not finite") from error
    return arguments


def _within(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_within(child, levels - 1) for child in children)


Arguments = Annotated[dict[str, Any], AfterValidator(_storable)]

SubmissionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


def _require_type(schema: dict[str, Any]) -> None:
    """In the OpenAPI document: `type` has a default for Python only, a body without it is of no kind."""
    schema["required"] = ["type", *schema.get("required", ())]
    del schema["properties"]["type"]["default"]


class _Submission(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_require_type)

    id: SubmissionId | None = Field(
        default=None,
        description="Chosen by the caller, so that sending the submission again does not run it twice. Generated if missing.",
    )


class UserInput(_Submission):
    """Input from the user. It starts a turn."""

    type: Literal["user_input"] = "user_input"
    text: str = Field(min_length=1, max_length=MAX_TEXT, description="What the user says.")


class Decision(BaseModel):
    """A person's decision on one tool call that waits for approval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool_call_id: str = Field(min_length=1, max_length=256)
    approved: StrictBool
    feedback: str | None = Field(default=None, max_length=MAX_TEXT, description="Sent to the model.")
    arguments: Arguments | None = Field(default=None, description="Run the call with these arguments in place of the model's.")


class Approval(_Submission):
    """Decides on the calls that wait for approval, and continues the turn. A call without a decision is denied, and one with
    several is denied if one of them denies it."""

    type: Literal["approval"] = "approval"
    decisions: list[Decision] = Field(max_length=256)


class Answer(_Submission):
    """Answers what a tool's server asks in the middle of a call. An answer is not queued: the call continues at once."""

    type: Literal["answer"] = "answer"
    question_id: str = Field(min_length=1, max_length=256)
    action: Literal["accept", "decline", "cancel"] = Field(
        description="`decline` refuses; `cancel` dismisses the question without a choice."
    )
    content: Arguments | None = Field(
        default=None, description="For `accept`: the values of the form. What is missing has the form's default."
    )


class Undo(_Submission):
    """Removes the last input and everything after it from the conversation. Effects of tool calls stay."""

    type: Literal["undo"] = "undo"


class Compact(_Submission):
    """Shortens the conversation now."""

    type: Literal["compact"] = "compact"


class Interrupt(_Submission):
    """Ends the running turn. An interrupt is not queued: it takes effect at once, or has no effect."""

    type: Literal["interrupt"] = "interrupt"


class Shutdown(_Submission):
    """Ends the session: interrupts the turn, drops the queue, reports, and exits."""

    type: Literal["shutdown"] = "shutdown"


Submission = UserInput | Approval | Answer | Undo | Compact | Interrupt | Shutdown

AnySubmission = Annotated[Submission, Field(discriminator="type")]


class Receipt(BaseModel):
    """A submission was accepted and is on the disk."""

    id: str
    type: str
    state: Literal["queued", "running", "done"]
    position: int | None = Field(
        default=None, description="How many submissions are run before this one; null once it is done."
    )


def canonical(submission: Submission) -> str:
    """The submission as JSON without its id; equal submissions have equal text."""
    return submission.model_dump_json(exclude={"id"}, exclude_defaults=False, ensure_ascii=True)
