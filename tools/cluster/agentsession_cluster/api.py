"""A small client of the API server: JSON over HTTPS with a client certificate."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ClusterError

Json = dict[str, Any]


class ApiError(ClusterError):
    """The API server answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the API server answered {status}: {message}")
        self.status = status


class Api:
    """One connection to one cluster's API server, as the user of one certificate. Not thread-safe."""

    def __init__(self, host: str, port: int, certificates: Path, user: str, timeout: float = 10.0) -> None:
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        context.load_cert_chain(str(certificates / f"{user}.crt"), str(certificates / f"{user}.key"))
        self._connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)

    def request(self, method: str, path: str, body: Json | None = None, content_type: str = "application/json") -> Json:
        """Sends one request; returns the parsed answer. Raises ApiError, or OSError when the server is not there."""
        raw = self._send(method, path, body, content_type)
        return json.loads(raw) if raw.startswith(b"{") else {"text": raw.decode()}

    def apply(self, path: str, manifest: Json) -> Json:
        """Server-side apply, so that a second run changes nothing."""
        query = "?fieldManager=agentsession-cluster&force=true"
        return self.request("PATCH", path + query, manifest, "application/apply-patch+yaml")

    def watch(self, path: str) -> Iterator[Json]:
        """Yields watch events until the server or the connection's timeout ends the stream."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        if response.status != 200:
            raise ApiError(response.status, response.read().decode(errors="replace"))
        while line := response.readline():
            yield json.loads(line)

    def close(self) -> None:
        self._connection.close()

    def _send(self, method: str, path: str, body: Json | None, content_type: str) -> bytes:
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, data, {"Content-Type": content_type})
            response = self._connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next request opens a new one
            raise
        if response.status >= 400:
            raise ApiError(response.status, raw.decode(errors="replace")[:500])
        return raw
