"""The same without the runtime: what the libraries under it cost by themselves. `python bare.py KIND PORT`.

- `fastapi`: an application with one path, for its start and its memory
- `events`: a Starlette stream of 10,000 events that it makes up
- `live`: a Starlette stream of what is posted: a submission gives a chunk and an end; /burst gives 5,000 events
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

EVENTS = 10_000
BURST = 5_000


def event(seq: int, type_: str, submission: str | None = None) -> bytes:
    body = {"seq": seq, "type": type_, "time": "", "submission_id": submission, "data": {"n": seq}}
    return f"id: {seq}\ndata: {json.dumps(body)}\n\n".encode()


def fastapi_app() -> object:
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/readyz")
    async def ready() -> str:
        return "ok"

    return app


def starlette_app(kind: str) -> object:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def made_up() -> AsyncIterator[bytes]:
        for seq in range(1, EVENTS + 1):
            yield event(seq, "usage")

    async def posted() -> AsyncIterator[bytes]:
        while True:
            yield await queue.get()

    async def events(_: Request) -> Response:
        return StreamingResponse(made_up() if kind == "events" else posted(), media_type="text/event-stream")

    async def submit(request: Request) -> Response:
        submission = (await request.json())["id"]
        queue.put_nowait(event(1, "assistant_chunk", submission))
        queue.put_nowait(event(2, "turn_complete", submission))
        return JSONResponse({"id": submission}, 202)

    async def burst(_: Request) -> Response:
        for seq in range(1, BURST + 1):
            queue.put_nowait(event(seq, "usage"))
        return Response(status_code=202)

    return Starlette(
        routes=[
            Route("/readyz", ready),
            Route("/v1/events", events),
            Route("/v1/submissions", submit, methods=["POST"]),
            Route("/burst", burst, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    import uvicorn

    kind, port = sys.argv[1], int(sys.argv[2])
    app = fastapi_app() if kind == "fastapi" else starlette_app(kind)
    uvicorn.run(app, port=port, log_level="critical", access_log=False)  # type: ignore[arg-type]
