"""What broke a connection to a model's server, in words: clients say "Connection error." for everything."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from agent.model.failure import ModelError, ModelUnavailableError, Where, with_words


def connection_error(error: BaseException, where: Where) -> ModelError:
    """What an error of an HTTP client means that is no answer of the server."""
    causes = [error, *causes_of(error)]
    words = next((text for cause in reversed(causes) if (text := str(cause)) and text != "None"), type(error).__name__)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ModelError(
                with_words(
                    f"The TLS certificate of {where.server} is not trusted. Check baseURL, or give the server a certificate "
                    "that the agent's image trusts.",
                    words,
                    "TLS",
                )
            )
    names = {type(cause).__name__ for cause in causes}
    if any(isinstance(cause, socket.gaierror) for cause in causes) or "ClientConnectorDNSError" in names:
        message = f"The host name of {where.server} cannot be resolved. Check baseURL and the cluster's DNS."
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        message = f"Nothing accepts connections for {where.server}. Check that it runs and that baseURL is right."
    elif any(isinstance(cause, ssl.SSLError) for cause in causes):
        message = f"The TLS handshake with {where.server} failed. Check that baseURL has the right scheme and port."
    elif names & {"ConnectTimeout", "ConnectionTimeoutError"}:
        message = f"{where.sentence} did not accept a connection in time. Check that it is reachable from the session's pod."
    elif "InvalidURL" in names or "UnsupportedProtocol" in names:
        return ModelError(with_words(f"The address of {where.server} is not valid. Check baseURL.", words, "The client"))
    elif any(isinstance(cause, TimeoutError) for cause in causes) or names & {
        "ReadTimeout",
        "WriteTimeout",
        "APITimeoutError",
        "Timeout",
    }:
        message = f"{where.sentence} did not answer in time."
    elif names & {"ConnectError", "ClientConnectorError", "APIConnectionError"} and "ReadError" not in names:
        message = f"The connection to {where.server} cannot be opened. Check baseURL and the network policies."
    else:
        message = f"The connection to {where.server} broke before the answer was complete."
    return ModelUnavailableError(with_words(message, words, "The network"))


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that a client has turned into this one, the nearest first."""
    seen = {id(error)}
    cause = error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
