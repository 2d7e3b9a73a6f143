"""Access tokens for an MCP server that asks for them, where no person has to sign in: a client that is registered at the
authorization server gets them for itself (MCP 2025-11-25, authorization; SEP-1046), with a secret or a signature.

The official client does the protocol: it finds the authorization server, checks that it is the one that the credentials belong
to, and asks for the token. What it does not do is here.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import httpx2
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import ValidationError

from agent.tools.mcp.http import AuthorizationError
from agent.tools.mcp.server import OAuthClient
from agent.tools.tool import cut_output

TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
"""Seconds for each request to the authorization server. The official client sets none."""

EXCERPT: Final = 500
"""Characters of what an authorization server says that are quoted."""

_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
"""Of signatures, by the curve of the key."""


class ClientAuth(httpx2.Auth):
    """Authenticates requests to one MCP server; every other request passes as it is.

    `issued` is called with each token, before it is used.
    """

    def __init__(self, url: str, client: OAuthClient, issued: Callable[[str], None]) -> None:
        self._url = httpx2.URL(url)
        self._issuer = client.issuer
        self._provider = _provider(url, client, _Storage(issued))

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """With the token that there is, or else a new one.

        The official flow alone would hold its lock until a server begins to answer: calls that are answered as JSON would then
        run one after the other.
        """
        if not _is_of(self._url, request.url):
            yield request
            return
        token, for_scope = self._token, False
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
            response = yield request
            for_scope = response.status_code == 403 and "insufficient_scope" in response.headers.get("www-authenticate", "")
            if response.status_code != 401 and not for_scope:
                return
            if not for_scope and token == self._token:
                self._provider.context.clear_tokens()
        times = 0
        async with aclosing(self._provider.async_auth_flow(request)) as flow:
            outgoing = await self._next(flow, None)
            while outgoing is not None:
                times += outgoing is request
                if outgoing is request and (times == 2 or (self._token is not None and not for_scope)):
                    break  # it carries the token by now
                if outgoing is not request:
                    outgoing.extensions = {**outgoing.extensions, "timeout": TIMEOUT.as_dict()}
                response = yield outgoing
                outgoing = await self._next(flow, response)
        if outgoing is not None:
            yield outgoing

    @property
    def _token(self) -> str | None:
        """The token, while it is valid."""
        context = self._provider.context
        return context.current_tokens.access_token if context.is_token_valid() and context.current_tokens else None

    async def _next(
        self, flow: AsyncGenerator[httpx2.Request, httpx2.Response], response: httpx2.Response | None
    ) -> httpx2.Request | None:
        """The next request of the official flow, None at its end. Raises AuthorizationError."""
        try:
            return await (anext(flow) if response is None else flow.asend(response))
        except StopAsyncIteration:
            return None
        except Exception as error:
            # What pydantic says of a token response that it cannot read quotes the response.
            quotable = isinstance(error, OAuthFlowError) and not isinstance(error.__context__, ValidationError)
            said = cut_output(str(error), EXCERPT) if quotable else f"its answer cannot be read ({type(error).__name__})"
            raise AuthorizationError(f"no access token from {self._issuer}: {said}") from None


def _is_of(server: httpx2.URL, url: httpx2.URL) -> bool:
    """Whether a request is to the server itself, or to its https address on the default ports, where servers redirect to."""
    if url.host != server.host:
        return False
    upgraded = (server.scheme, server.port, url.scheme, url.port) == ("http", None, "https", None)
    return upgraded or (url.scheme, url.port) == (server.scheme, server.port)


# -- the official providers --------------------------------------------------------------------------------------------


def _provider(url: str, client: OAuthClient, storage: _Storage) -> OAuthClientProvider:
    # Its log quotes answers, which may hold a token. What fails is raised, too, and told without.
    logging.getLogger("mcp.client.auth").setLevel(logging.CRITICAL)
    known = {"server_url": url, "storage": storage, "client_id": client.client_id, "issuer": client.issuer}
    if client.private_key is None:
        return _WithSecret(client.scopes, client_secret=client.secret, **known)
    signed = SignedJWTParameters(
        issuer=client.client_id,
        subject=client.client_id,
        signing_key=client.private_key,
        signing_algorithm=_algorithm(client),
    )
    return _WithKey(client.scopes, assertion_provider=signed.create_assertion_provider(), **known)


def _algorithm(client: OAuthClient) -> str:
    """What a key signs with. Raises ValueError."""
    try:
        key = load_pem_private_key((client.private_key or "").encode(), None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the private key for {client.issuer} is no unencrypted key in PEM ({type(error).__name__})") from None
    match key:
        case EllipticCurvePrivateKey() if key.curve.name in _ALGORITHMS:
            return _ALGORITHMS[key.curve.name]
        case RSAPrivateKey():
            return "RS256"
        case Ed25519PrivateKey():
            return "EdDSA"
    raise ValueError(f"the private key for {client.issuer} is of a kind that cannot sign: use RSA, EC (P-256) or Ed25519")


class _WithSecret(ClientCredentialsOAuthProvider):
    def __init__(self, scopes: tuple[str, ...], **known: Any) -> None:
        super().__init__(**known)
        self._scopes = scopes

    async def _perform_authorization(self) -> httpx2.Request:
        metadata, client = self.context.oauth_metadata, self.context.client_info
        methods = None if metadata is None else metadata.token_endpoint_auth_methods_supported
        # Without the list it is Basic (RFC 8414, 2).
        if client is not None and methods and "client_secret_basic" not in methods and "client_secret_post" in methods:
            client.token_endpoint_auth_method = "client_secret_post"  # noqa: S105 - the name of a method
        if self._scopes:
            self.context.client_metadata.scope = " ".join(self._scopes)
        return await super()._perform_authorization()


class _WithKey(PrivateKeyJWTOAuthProvider):
    def __init__(self, scopes: tuple[str, ...], **known: Any) -> None:
        super().__init__(**known)
        self._scopes = scopes

    async def _perform_authorization(self) -> httpx2.Request:
        if self._scopes:
            self.context.client_metadata.scope = " ".join(self._scopes)
        return await super()._perform_authorization()


class _Storage:
    """Tokens are in memory only, and the client is known."""

    def __init__(self, issued: Callable[[str], None]) -> None:
        self._issued = issued

    async def get_tokens(self) -> OAuthToken | None:
        return None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        for token in (tokens.access_token, tokens.refresh_token):
            if token:
                self._issued(token)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Nobody registers."""
