"""Errors of the HTTP API as problem details (RFC 9457): what is wrong, with which field, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

MEDIA_TYPE: Final = "application/problem+json"


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """An error, for a program (`type`) and for a person (`detail`)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None


class ProblemError(Exception):
    """Answers the request with this problem."""

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(
            type=f"urn:agentsession:problem:{kind}",
            title=title,
            status=status,
            detail=detail,
            errors=list(errors) or None,
        )
        self.headers = headers

    def response(self) -> JSONResponse:
        body = self.problem.model_dump(exclude_none=True)
        return JSONResponse(body, self.problem.status, self.headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: these statuses are answered with problem details."""
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in statuses}


def install(app: FastAPI) -> None:
    """Answer every error of the app with problem details."""

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return invalid_request(error, request.headers.get("content-type", "")).response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return http_problem(error).response()

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return ProblemError(500, "internal", "The session has a problem", _INTERNAL).response()


MAX_FIELDS: Final = 20
"""Fields that an answer names; a body may have many thousands that nobody knows."""

MAX_FIELD_TEXT: Final = 200
"""Characters of a field's name, or of what is wrong with it."""


def _field(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location))[:MAX_FIELD_TEXT]


def invalid_request(error: RequestValidationError, content_type: str) -> ProblemError:
    """Names each field with what is wrong; what was sent is not repeated, it may be a secret."""
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        where = f"{errors[0]['ctx']['error']} at character {errors[0]['loc'][1]}"
        return _malformed(f"this is not JSON: {where}")
    if errors[0]["loc"] == ("body",) and errors[0]["type"] != "missing" and not _says_json(content_type):
        field = FieldProblem(field="header.content-type", detail="the content type is not JSON")
        detail = f"{field.field}: {field.detail}. Send `Content-Type: application/json`."
        return ProblemError(415, "media-type", "The body must be JSON", detail, errors=[field])
    named_errors = errors[:MAX_FIELDS]
    fields = [FieldProblem(field=_field(e["loc"]), detail=str(e["msg"])[:MAX_FIELD_TEXT]) for e in named_errors]
    named = "; ".join(f"{field.field}: {field.detail}" for field in fields)
    if len(errors) > len(fields):
        named += f"; and {len(errors) - len(fields)} more"
    return ProblemError(
        422,
        "invalid",
        "The request does not fit the API",
        f"Correct these fields and send the request again: {named}",
        errors=fields,
    )


def http_problem(error: HTTPException) -> ProblemError:
    """What the framework refuses, with the field and the remedy."""
    headers = dict(error.headers) if error.headers else None
    if error.status_code == 400:  # FastAPI could not read the body, and it was no JSONDecodeError
        return _malformed("this is not JSON in UTF-8, or it is nested too deeply")
    kind, detail = _REFUSALS.get(error.status_code, ("request", str(error.detail)))
    field = _FIELDS.get(error.status_code)
    errors = [FieldProblem(field=field, detail=str(error.detail))] if field else []
    return ProblemError(error.status_code, kind, str(error.detail), detail, errors=errors, headers=headers)


def _malformed(what: str) -> ProblemError:
    field = FieldProblem(field="body", detail=what)
    return ProblemError(
        400, "malformed", "The body cannot be read", f"body: {what}. Correct it and send it again.", errors=[field]
    )


def _says_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


_INTERNAL: Final = (
    "See the session's log for details. Send the request again when /readyz returns 200. The same `id` does not run twice."
)

_FIELDS: Final = {404: "path", 405: "method", 408: "body", 413: "body"}

_REFUSALS: Final = {
    404: ("not-found", "path: there is no such path. /v1/docs lists all paths."),
    405: ("method", "method: this path does not support it. /v1/docs lists all methods."),
    408: ("slow", "body: it did not arrive within 30 s. Send it again in one piece."),
    413: ("too-large", "body: it is larger than 1 MiB. Put long texts into a file in the workspace."),
}
"""By status: the problem's type, for programs, and its detail, for people."""
