"""The HTTP API of a session (`/v1`), as an ASGI application."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, FastAPI, Header, Query, Response, Security
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from session_runtime.http import api_page, problems
from session_runtime.http.auth import LimitBody, RequireToken
from session_runtime.http.problems import ProblemError
from session_runtime.reporting.metrics import Metrics
from session_runtime.reporting.report import pending, usage
from session_runtime.session.events import slices
from session_runtime.session.journal import Journal
from session_runtime.session.refusals import (
    AnswerDoesNotFit,
    IdReused,
    QuestionClosed,
    QueueFull,
    SessionFinished,
    SubmissionRefused,
)
from session_runtime.session.session import Session
from session_runtime.session.submissions import Answer, AnySubmission, Interrupt, Receipt, Shutdown
from session_runtime.wire import Activity, Outcome, PendingApproval, SessionConfig, Usage

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request."""

Seq = Annotated[int, Field(ge=0, le=2**53)]
"""Number of an event; the bound is what a number in JSON holds everywhere."""

BODY_SECONDS: Final = 30.0
"""How long the body of a request may take to come."""

KEEP_ALIVE: Final = 15.0
"""Seconds of silence after which an event stream gets a comment, so that no proxy takes it for dead."""

BUSY_SHARE: Final = 1 / 15
"""The share of that time after which a stream of one submission gets a comment when others have events: the next wait may take
the whole time."""

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Paths that need no token: the kubelet's."""


class SessionInfo(BaseModel):
    """A session at one moment."""

    session_id: str
    name: str
    namespace: str
    user: str
    created_at: str
    is_active: bool
    """False once it has finished."""
    is_processing: bool
    activity: Activity
    message_count: int
    queued: int
    last_seq: int
    pending_approval: list[PendingApproval]
    problems: list[str]
    """What is wrong with the servers that tools come from; empty when all is well."""
    usage: Usage
    outcome: Outcome | None
    outcome_message: str | None


class Messages(BaseModel):
    """The conversation, without the system message."""

    messages: list[dict[str, Any]]


class Checkpoint(BaseModel):
    """How much of the session is on the disk in one file."""

    last_seq: int


def create_app(
    config: SessionConfig,
    session: Session,
    journal: Journal,
    metrics: Metrics,
    problems_of: Callable[[], Mapping[str, str]] = dict,
    keep_alive: float = KEEP_ALIVE,
) -> FastAPI:
    """The application. `problems_of` says what keeps this process from being ready, by name."""
    app = FastAPI(
        title="AgentSession runtime",
        version="1",
        description="One agent session: submit input, follow its events, read its state.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(LimitBody, limit=MAX_BODY, seconds=BODY_SECONDS)
    app.add_middleware(RequireToken, token_sha256=config.token_sha256, open_paths=OPEN_PATHS)
    problems.install(app)
    _add_health(app, problems_of)
    # RequireToken has looked at the token by then; this says so in the OpenAPI document.
    closed = APIRouter(dependencies=[Security(HTTPBearer(auto_error=False, description="The session's token."))])
    _add_submissions(closed, session, journal)
    _add_events(closed, session, journal, metrics, keep_alive)
    _add_state(closed, config, session, journal, metrics)
    _add_page(closed, app)
    app.include_router(closed)
    return app


def _add_health(app: FastAPI, problems_of: Callable[[], Mapping[str, str]]) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process answers."""
        return "ok\n"

    @app.get("/readyz", response_class=PlainTextResponse, responses={503: {"description": "What is wrong."}})
    async def readyz() -> Response:
        """The session accepts requests."""
        wrong = problems_of()
        if wrong:
            return PlainTextResponse("".join(f"{name}: {why}\n" for name, why in wrong.items()), 503)
        return PlainTextResponse("ok\n")


def _add_submissions(api: APIRouter, session: Session, journal: Journal) -> None:
    refused = problems.documented(400, 401, 403, 408, 409, 413, 415, 422, 429, 503)

    @api.post("/v1/submissions", status_code=202, responses=refused)
    async def submit(submission: Annotated[AnySubmission, Body()]) -> Receipt:
        """Submit input or a command. Submissions run in order; `answer`, `interrupt` and `shutdown` take effect at once.

        A submission with the same `id` is acknowledged, but does not run again.
        """
        if journal.problem is not None and not isinstance(submission, Answer | Interrupt | Shutdown):
            # What takes effect at once does so on a full volume, too; other submissions would wait for room without a word.
            detail = f"{journal.problem}. The submission was not accepted. Send it again when there is room."
            raise ProblemError(503, "volume-full", "The volume is full", detail, headers={"Retry-After": "5"})
        try:
            return await session.submit(submission)
        except SubmissionRefused as refused:
            raise _problem(refused) from refused


def _problem(refused: SubmissionRefused) -> ProblemError:
    match refused:
        case SessionFinished():
            detail = f"{refused} It accepts no more submissions. Start a new session."
            return ProblemError(409, "finished", "The session has finished", detail)
        case QueueFull():
            detail = "Too many submissions are queued. Send this one again when some of them are done."
            return ProblemError(429, "queue-full", "The queue is full", detail, headers={"Retry-After": "5"})
        case IdReused():
            field = problems.FieldProblem(field="body.id", detail="another submission has this id")
            detail = "body.id: another submission has this id. Send this one with a different id."
            return ProblemError(422, "id-reused", "The id is taken", detail, errors=[field])
        case QuestionClosed():
            detail = "body.question_id: no question with this id is open. It was answered, or its call has ended."
            return ProblemError(409, "question-closed", "The question is closed", detail)
        case AnswerDoesNotFit():
            fields = [
                problems.FieldProblem(field=f"body.content.{name}".removesuffix("."), detail=problem)
                for name, problem in list(refused.problems.items())[: problems.MAX_FIELDS]
            ]
            said = "; ".join(f"{field.field}: {field.detail}" for field in fields)
            detail = f"Correct these fields and send the answer again: {said}"
            return ProblemError(422, "invalid", "The answer does not fit the question", detail, errors=fields)
    raise AssertionError(refused)


def _add_events(api: APIRouter, session: Session, journal: Journal, metrics: Metrics, keep_alive: float) -> None:
    @api.get(
        "/v1/events",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."},
            204: {"description": "The submission has no events after this number, and will have none."},
            **problems.documented(401, 403, 404, 422),
        },
    )
    async def events(
        after: Annotated[Seq, Query(description="Number of the last event that the caller has.")] = 0,
        submission: Annotated[str | SkipJsonSchema[None], Query(description="Only the events of this submission.")] = None,
        last_event_id: Annotated[Seq | SkipJsonSchema[None], Header(description="Wins over `after`.")] = None,
    ) -> Response:
        """Every event since, then each one as it happens: no gap and no duplicate.

        The stream ends when the session has finished or, with `submission`, at the last event of that submission. When that
        has been sent already, the answer is 204.
        Old events are deleted after 30 days. An event of type `gap` stands for deleted events.
        """
        if submission is not None and session.submission(submission) is None:
            field = problems.FieldProblem(field="query.submission", detail="no submission has this id")
            detail = "query.submission: no submission has this id. Send the submission first, or omit `submission`."
            raise ProblemError(404, "submission-unknown", "Unknown submission", detail, errors=[field])
        start = after if last_event_id is None else last_event_id
        if submission is not None and _has_nothing(session, submission, start):
            return Response(status_code=204)  # a browser's EventSource would connect again after any other end (HTML, 9.2)
        stream = _stream(session, journal, metrics, start, submission, keep_alive)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _stream(
    session: Session, journal: Journal, metrics: Metrics, after: int, submission: str | None, keep_alive: float
) -> AsyncIterator[bytes]:
    with metrics.subscribers.track_inprogress():
        sent = time.monotonic()
        async with aclosing(journal.follow(after, keep_alive)) as following:
            async for frames in following:
                wanted = frames if submission is None else [f for f in frames if f.submission_id == submission]
                after = frames[-1].seq if frames else after
                if wanted:
                    for piece in slices(wanted):
                        yield piece
                    sent = time.monotonic()
                elif not frames or time.monotonic() - sent >= keep_alive * BUSY_SHARE:
                    yield b": keep-alive\n\n"  # also while only other submissions have events
                    sent = time.monotonic()
                if submission is not None and _has_ended(session, submission, after):
                    return


def _has_ended(session: Session, submission_id: str, after: int) -> bool:
    """Whether the submission has ended with an event that is not behind number `after`."""
    submitted = session.submission(submission_id)
    return submitted is not None and submitted.ended_by is not None and submitted.ended_by <= after


def _has_nothing(session: Session, submission_id: str, after: int) -> bool:
    """Whether there is nothing to send about the submission, and never will be."""
    submitted = session.submission(submission_id)
    silent = submitted is not None and submitted.type in ("interrupt", "answer")
    return silent or _has_ended(session, submission_id, after)


def _add_state(api: APIRouter, config: SessionConfig, session: Session, journal: Journal, metrics: Metrics) -> None:
    refused = problems.documented(401, 403)

    @api.get("/v1/session", responses=refused)
    async def info() -> SessionInfo:
        """The session's state."""
        now = session.snapshot()
        return SessionInfo(
            session_id=config.uid,
            name=config.name,
            namespace=config.namespace,
            user=config.user,
            created_at=now.created_at,
            is_active=now.ending is None,
            is_processing=now.is_processing,
            activity=now.activity,
            message_count=len(now.messages),
            queued=now.queued,
            last_seq=now.last_seq,
            pending_approval=pending(now),
            problems=list(now.problems),
            usage=usage(now.usage),
            outcome=None if now.ending is None else now.ending.outcome,
            outcome_message=None if now.ending is None else now.ending.message,
        )

    @api.get("/v1/messages", responses=refused)
    async def messages() -> Response:
        """The conversation as it stands. Of images it has facts, not the data."""
        return JSONResponse({"messages": [message.outline() for message in session.snapshot().messages]})

    @api.post("/v1/checkpoint", responses=refused)
    async def checkpoint() -> Checkpoint:
        """Write the whole session to one file on its volume."""
        await journal.checkpoint()
        return Checkpoint(last_seq=journal.last_seq)

    @api.get("/metrics", response_class=PlainTextResponse, responses=refused)
    async def prometheus() -> Response:
        """This session in Prometheus's text format. The operator's /metrics has the metrics of all sessions."""
        return Response(metrics.text(session.snapshot()), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(api: APIRouter, app: FastAPI) -> None:
    @api.get("/v1/docs", response_class=HTMLResponse, responses=problems.documented(401, 403))
    async def docs() -> Response:
        """This page."""
        headers = {"Content-Security-Policy": api_page.CONTENT_SECURITY_POLICY}
        return HTMLResponse(api_page.render(app.openapi()), headers=headers)
