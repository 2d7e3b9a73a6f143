"""The session's credentials, as they arrive in the environment of the agent container."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from agent.secret_values import secret_parts
from session_runtime.wire import CREDENTIAL_PREFIX, HEADER_PREFIX, OAUTH_PREFIX

_NOT_CREDENTIALS: Final = re.compile(r"PATH|HOME|LD_.*|PYTHON.*|AGENTSESSION_.*")
"""Names that a Secret may not set in this process: they steer the process itself."""


def credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """The session's credentials, by the names that their keys have in the Secret."""
    return _under(CREDENTIAL_PREFIX, environment)


def provider_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of the credentials that model providers' clients may find in the environment (`OPENAI_API_KEY`, ...)."""
    found = credentials(environment).items()
    return {name: value for name, value in found if name and not _NOT_CREDENTIALS.fullmatch(name)}


def secret_values(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What must appear in no event, message or log: the keys among the credentials, the values of MCP servers' headers, and the
    secrets that the session has at their authorization servers."""
    named = [*credentials(environment).items(), *_under(OAUTH_PREFIX, environment).items()]
    for header in _under(HEADER_PREFIX, environment).values():
        # The token of `Bearer TOKEN` is as secret alone: a server that shows it need not show the word before it.
        named += [("", header), ("", header.partition(" ")[2])]
    return tuple(part for name, value in named for part in secret_parts(name, value))


def _under(prefix: str, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(prefix): without_line_break(value) for name, value in environment.items() if name.startswith(prefix)
    }


def without_line_break(value: str) -> str:
    """A Secret that was made from a file often ends with a line break, which no header takes, and which a tool that prints
    the value need not print."""
    return value.strip()
