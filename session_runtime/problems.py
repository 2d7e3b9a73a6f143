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
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return invalid_request(error).response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        kind = _KINDS.get(error.status_code, "request")
        detail = _REMEDIES.get(error.status_code, str(error.detail))
        headers = dict(error.headers) if error.headers else None
        return ProblemError(error.status_code, kind, str(error.detail), detail, headers=headers).response()


def invalid_request(error: RequestValidationError) -> ProblemError:
    """Names each field with what is wrong; what was sent is not repeated, it may be a secret."""
    errors = [FieldProblem(field=".".join(map(str, e["loc"])), detail=str(e["msg"])) for e in error.errors()]
    named = "; ".join(f"{e.field}: {e.detail}" for e in errors)
    return ProblemError(422, "invalid", "The request does not fit the API", f"Correct and send again: {named}", errors=errors)


_KINDS: Final = {404: "not-found", 405: "method", 413: "too-large"}

_REMEDIES: Final = {
    404: "There is nothing at this path; /v1/openapi.json lists what there is.",
    405: "This path does not take this method; /v1/openapi.json lists what there is.",
    413: "A request may have at most 1 MiB; put long texts into a file of the workspace.",
}
