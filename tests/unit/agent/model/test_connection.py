"""A connection that fails says why: with a client of real sockets, and for both clients that we use."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest

from agent.messages import Message
from agent.model.connection import connection_error
from agent.model.failure import ModelError, ModelUnavailableError, Where
from agent.model.model import LiteLLMModel
from support.agent.openai_server import serve

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def plain_http() -> AsyncIterator[str]:
    """The address of a server that answers a TLS handshake as those for plain HTTP do."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def failure(name: str, url: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        async for _ in LiteLLMModel(name, base_url=url, api_key="k").stream((Message("user", "hi"),), []):
            pass
    return caught.value


@pytest.mark.parametrize("name", ["some-model", "anthropic/claude-sonnet-4-5"])
async def test_a_failed_connection_names_its_cause(name: str) -> None:
    async with serve() as gone:
        pass
    async with plain_http() as address:
        await _check_causes(name, gone.url, f"https://{address}/v1")


async def _check_causes(name: str, gone: str, plain: str) -> None:
    causes = {
        "http://no-such-host.invalid/v1": "cannot be resolved",
        gone: "Nothing accepts connections",
        plain: "TLS handshake",
    }
    for url, words in causes.items():
        error = await failure(name, url)
        assert type(error) is ModelUnavailableError
        assert words in str(error)
        assert url in str(error)
        assert "litellm" not in str(error)


@pytest.mark.parametrize(
    ("cause", "expected", "words"),
    [
        (ssl.SSLCertVerificationError("self-signed certificate"), ModelError, "not trusted"),
        (httpx.ConnectTimeout(""), ModelUnavailableError, "did not accept a connection in time"),
        (httpx.ReadTimeout(""), ModelUnavailableError, "did not answer in time"),
        (httpx.ConnectError("All connection attempts failed"), ModelUnavailableError, "cannot be opened"),
        (httpx.ReadError("reset"), ModelUnavailableError, "broke before the answer was complete"),
        (httpx.UnsupportedProtocol("ftp"), ModelError, "not valid"),
    ],
)
def test_what_a_client_raises_is_told_apart(cause: Exception, expected: type[ModelError], words: str) -> None:
    wrapped = RuntimeError("Connection error.")
    wrapped.__cause__ = cause
    error = connection_error(wrapped, Where("some-model"))
    assert type(error) is expected
    assert words in str(error)
