"""Access tokens without a sign-in: where they come from, who sees them, and what happens when there are none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent.question import Question, QuestionAnswer
from agent.redaction import MASK
from agent.tools.mcp import connection, oauth
from agent.tools.mcp.connection import McpConnection
from agent.tools.mcp.oauth import ClientAuth
from agent.tools.mcp.server import McpServer, OAuthClient
from agent.tools.router import ToolRouter
from support.agent.canned_mcp import canned_app, reply, tools
from support.agent.mcp_http import http, mcp_app
from support.agent.oauth_server import CLIENT_ID, SECRET, AuthorizationServer, Protected, basic
from support.agent.processes import until

pytestmark = pytest.mark.anyio

ANSWERS = {"tools/list": tools("t"), "tools/call": '{"content":[{"type":"text","text":"fine"}]}'}


@dataclass
class World:
    """An authorization server, an MCP server behind it, and somebody else."""

    login: AuthorizationServer
    mcp: Protected
    elsewhere: list[dict[str, str]]
    elsewhere_url: str

    def client(self, **changes: Any) -> OAuthClient:
        return OAuthClient(**{"issuer": self.login.url, "client_id": CLIENT_ID, "secret": SECRET, **changes})

    @contextlib.asynccontextmanager
    async def session(self, client: OAuthClient | None = None) -> AsyncIterator[ToolRouter]:
        server = McpServer("a", url=self.mcp.url, headers={"X-Team": "header-of-ours"}, oauth=client or self.client())
        async with ToolRouter(sources=(McpConnection(server),)) as router:
            yield router

    async def problem(self, client: OAuthClient | None = None) -> str:
        async with self.session(client) as router:
            [problem] = router.problems
            return problem


@contextlib.asynccontextmanager
async def world(app: Callable[..., Any] | None = None, **settings: Any) -> AsyncIterator[World]:
    """`settings` are those of the authorization server."""
    login = AuthorizationServer(**settings)
    mcp = Protected(app or mcp_app(), login)
    elsewhere: list[dict[str, str]] = []
    async with http(login) as login_url, http(mcp) as mcp.url, http(mcp_app(elsewhere)) as elsewhere_url:
        login.url = login_url.removesuffix("/mcp")
        yield World(login, mcp, elsewhere, elsewhere_url)


# Who sees what.


@pytest.mark.parametrize("legacy", [False, True], ids=["2026", "legacy"])
async def test_a_client_gets_a_token_that_only_its_server_sees(legacy: bool) -> None:
    async with world(mcp_app(legacy=legacy)) as w, w.session() as router:
        assert (await router.call("a__add", {"a": 1, "b": 2})).output == "3"
        assert router.problems == ()
        [(headers, form)] = w.login.token_requests
        assert headers["authorization"] == basic()
        assert (form["grant_type"], form["resource"]) == ("client_credentials", w.mcp.url)
        assert SECRET not in str(form)
        assert all("x-team" not in headers for _, headers, _ in w.login.requests)
        assert not any(w.login.issued[0] in str(request) for request in w.login.requests)
        authorized = [headers.get("authorization") for _, headers in w.mcp.seen]
        assert authorized[0] is None
        assert set(authorized[1:]) == {f"Bearer {w.login.issued[0]}"}
        assert {headers["x-team"] for _, headers in w.mcp.seen} == {"header-of-ours"}
        assert SECRET not in str(w.mcp.seen)


@pytest.mark.parametrize("legacy", [False, True], ids=["2026", "legacy"])
async def test_streams_of_changes_have_the_token_too(legacy: bool) -> None:
    async with world(mcp_app(legacy=legacy)) as w, w.session() as router:
        assert (await router.call("a__grow", {})).success
        await until(lambda: router.get("a__grown"))
        if legacy:
            assert {headers.get("authorization") for method, headers in w.mcp.seen if method == "GET"} == {
                f"Bearer {w.login.issued[0]}"
            }


async def test_no_token_goes_where_a_server_redirects_to() -> None:
    async with world() as w:

        async def leads_away(scope: Any, receive: Any, send: Any) -> None:
            await reply(send, 307, b"", "text/plain", (b"location", w.elsewhere_url.encode()))

        w.mcp.app = leads_away
        assert "not followed" in await w.problem()
        assert w.login.issued
        assert w.elsewhere == []


async def test_a_request_to_another_origin_has_no_token() -> None:
    async with world() as w:
        issued: list[str] = []
        auth = ClientAuth(w.mcp.url, w.client(), issued.append)
        own, port = httpx2.URL(w.mcp.url), httpx2.URL(w.elsewhere_url).port
        async with httpx2.AsyncClient(auth=auth) as client:
            assert (await client.post(own, json={})).status_code != 401
            assert issued
            for other in (w.elsewhere_url, own.copy_with(host="localhost", port=port)):
                await client.post(other, json={})
        assert len(w.elsewhere) == 2
        assert not any("authorization" in headers for headers in w.elsewhere)


async def test_no_secret_goes_where_an_authorization_server_redirects_to() -> None:
    async with world() as w:
        w.login.redirect = w.elsewhere_url
        assert "not followed" in await w.problem()
        assert w.elsewhere == []


async def test_no_secret_goes_to_another_authorization_server_than_the_configured() -> None:
    async with world() as w:
        thief = AuthorizationServer()
        async with http(thief) as url:
            thief.url = w.mcp.names = url.removesuffix("/mcp")
            problem = await w.problem()
            assert f"no access token from {w.login.url}: " in problem
            assert "issuer mismatch" in problem
            thief.issuer = w.login.url  # it says that it is the right one
            assert "issuer mismatch" in await w.problem()
            assert thief.token_requests == w.login.token_requests == []


async def test_no_token_is_asked_for_when_the_resource_is_another() -> None:
    async with world() as w:
        w.mcp.resource = "https://evil.example.com/mcp"
        assert "does not match" in await w.problem()
        assert w.login.token_requests == []


async def test_what_a_server_shows_of_its_token_is_masked() -> None:
    async with world() as w, w.session() as router:
        assert (await router.call("a__authorization", {})).output == f"Bearer {MASK}"


async def test_a_question_and_an_error_with_the_token_are_masked() -> None:
    async def telling(request: dict[str, Any], send: Any) -> bool:
        if request.get("method") != "tools/call":
            return False
        error = {"code": -32000, "message": f"I got {w.login.issued[0]}"}
        await reply(send, 200, json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode())
        return True

    async with world(canned_app({"tools/list": tools("t")}, respond=telling)) as w, w.session() as router:
        assert (await router.call("a__t", {})).output == f"the MCP server a failed: I got {MASK}"
    asked: list[Question] = []

    async def person(question: Question) -> QuestionAnswer:
        asked.append(question)
        return QuestionAnswer("decline")

    async with world() as w, w.session() as router:
        await router.call("a__seat", {"where": w.login.issued[0]}, person)
    assert asked[0].message == f"Which seat to {MASK}?"


# How clients authenticate.


async def test_a_secret_is_posted_where_only_that_is_accepted() -> None:
    async with world(methods=("client_secret_post",)) as w, w.session() as router:
        assert router.problems == ()
        [(headers, form)] = w.login.token_requests
        assert "authorization" not in headers
        assert (form["client_id"], form["client_secret"]) == (CLIENT_ID, SECRET)


def pem(key: Any) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["P-256", "P-384", "RSA", "Ed25519"],
)
async def test_a_client_with_a_key_signs_what_it_proves_itself_with(key: Any, algorithm: str) -> None:
    async with world(methods=("private_key_jwt",)) as w:
        client = w.client(secret=None, private_key=pem(key), scopes=("read",))
        async with w.session(client) as router:
            assert router.problems == ()
        [(headers, form)] = w.login.token_requests
        assert "authorization" not in headers
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert form["scope"] == "read"
        claims = jwt.decode(form["client_assertion"], key.public_key(), [algorithm], audience=[w.login.url, f"{w.login.url}/"])
        assert (claims["iss"], claims["sub"]) == (CLIENT_ID, CLIENT_ID)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("no key at all", "is no unencrypted key in PEM"),
        (pem(x25519.X25519PrivateKey.generate()), "is of a kind that cannot sign"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "is of a kind that cannot sign"),
    ],
    ids=["text", "X25519", "another curve"],
)
async def test_a_key_that_cannot_be_used_is_a_problem_without_it(key: str, why: str) -> None:
    async with world() as w:
        problem = await w.problem(w.client(secret=None, private_key=key))
        assert why in problem
        assert key.splitlines()[-1] not in problem


def test_a_client_has_a_secret_or_a_key() -> None:
    for fields in ({}, {"secret": "a", "private_key": "b"}):
        with pytest.raises(ValueError, match="needs either a secret or a private key"):
            OAuthClient("https://login.example", CLIENT_ID, **fields)  # type: ignore[arg-type]
    assert "s3cret" not in repr(OAuthClient("https://login.example", CLIENT_ID, "s3cret"))


# Scopes.


async def test_scopes_are_those_that_the_server_asks_for_or_the_configured() -> None:
    async with world() as w:
        w.mcp.challenge = ', scope="read list"'
        async with w.session(), w.session(w.client(scopes=("api://a/.default",))):
            assert [form.get("scope") for _, form in w.login.token_requests] == ["read list", "api://a/.default"]


async def test_a_call_that_needs_a_further_scope_gets_it() -> None:
    async with world() as w:
        w.mcp.challenge = ', scope="read"'
        w.mcp.required_scope = "write"
        async with w.session() as router:
            assert (await router.call("a__add", {"a": 1, "b": 2})).output == "3"
        assert [form.get("scope") for _, form in w.login.token_requests] == ["read", "read write"]


# A token's life.


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_token_that_is_no_longer_valid_is_replaced(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(expires_in=-1 if how == "expired" else 3600) as w, w.session() as router:
        before = len(w.login.issued)
        if how == "revoked":
            w.login.valid.clear()
        assert (await router.call("a__add", {"a": 1, "b": 2})).output == "3"
        assert len(w.login.issued) > before
        assert (await router.call("a__authorization", {})).output == f"Bearer {MASK}"


async def test_parallel_calls_do_not_wait_for_each_other() -> None:
    """They are answered as JSON, so that nothing comes before the end."""
    arrived: list[str] = []

    async def together(request: dict[str, Any], send: Any) -> bool:
        if request.get("method") == "tools/call":
            arrived.append("call")
            await until(lambda: len(arrived) >= 3)
        return False

    async with world(canned_app(ANSWERS, respond=together)) as w, w.session() as router:
        w.login.valid.clear()  # all three find that out
        results = await asyncio.gather(*(router.call("a__t", {}) for _ in range(3)))
        assert [result.output for result in results] == ["fine"] * 3
        assert len(w.login.issued) <= 2 + 3


async def test_a_server_that_accepts_no_token_says_so() -> None:
    async with world() as w, w.session() as router:
        w.mcp.server = AuthorizationServer()  # none of ours is valid there
        failed = await router.call("a__add", {"a": 1, "b": 2})
        assert "HTTP 401 Unauthorized: it asks for credentials, or does not accept those that it got" in failed.output


# No token.


async def test_a_refusal_of_the_authorization_server_is_told_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps({"error": "invalid_client", "error_description": f"{SECRET} is wrong"})
    async with world(answer=(401, body)) as w:
        problem = await w.problem()
    assert problem.startswith(f"the MCP server a cannot be reached: no access token from {w.login.url}: ")
    assert '"error": "invalid_client"' in problem
    assert f"{MASK} is wrong" in problem
    assert SECRET not in caplog.text


async def test_a_token_in_an_answer_that_cannot_be_read_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answer = json.dumps({"access_token": "half-a-t0ken", "token_type": "Bearer", "expires_in": "soon"})
    async with world(answer=(200, answer)) as w:
        problem = await w.problem()
    assert f"no access token from {w.login.url}: its answer cannot be read" in problem
    assert "half-a-t0ken" not in problem + caplog.text


async def test_an_authorization_server_that_is_away_is_named() -> None:
    async with world() as w:
        w.mcp.names = "http://127.0.0.2:9"
        problem = await w.problem(w.client(issuer="http://127.0.0.2:9"))
        assert "no access token, as 127.0.0.2 does not answer: ConnectError" in problem


async def test_an_authorization_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth, "TIMEOUT", httpx2.Timeout(0.5))
    async with world() as w:
        w.login.hangs = True
        assert "no access token, as 127.0.0.1 does not answer: ReadTimeout" in await w.problem()


async def test_a_call_without_a_new_token_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECONNECT_WAITS", (0.01,))
    async with world() as w, w.session() as router:
        w.login.valid.clear()
        w.login.answer = (503, "busy")
        failed = await router.call("a__add", {"a": 1, "b": 2})
        assert (
            f"the MCP server a failed: no access token from {w.login.url}: Token exchange failed (503): busy" in failed.output
        )
        w.login.answer = None
        await until(lambda: not router.problems)
        assert (await router.call("a__add", {"a": 1, "b": 2})).output == "3"


async def test_a_token_endpoint_that_is_no_address_is_a_problem() -> None:
    async with world() as w:
        w.login.token_endpoint = "ftp://login.example/token"
        assert "no access token" in await w.problem()
