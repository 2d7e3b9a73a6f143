"""Which scenarios of MCP's conformance suite for clients (0.1.16) hold, and why the others do not. docs/mcp.md lists them."""

from __future__ import annotations

from typing import Final

CLAIMED: Final = (
    "initialize",
    "tools_call",
    "elicitation-sep1034-client-defaults",
    "sse-retry",
    "auth/pre-registration",
    "auth/client-credentials-basic",
    "auth/client-credentials-jwt",
    "auth/resource-mismatch",
)

BROWSER: Final = "a person signs in with a browser"

NOT_CLAIMED: Final = {
    **dict.fromkeys(
        (
            "auth/metadata-default",
            "auth/metadata-var1",
            "auth/metadata-var2",
            "auth/metadata-var3",
            "auth/basic-cimd",
            "auth/scope-from-www-authenticate",
            "auth/scope-from-scopes-supported",
            "auth/scope-omitted-when-undefined",
            "auth/scope-step-up",
            "auth/scope-retry-limit",
            "auth/token-endpoint-auth-basic",
            "auth/token-endpoint-auth-post",
            "auth/token-endpoint-auth-none",
            "auth/2025-03-26-oauth-metadata-backcompat",
            "auth/2025-03-26-oauth-endpoint-fallback",
            "auth/offline-access-scope",
            "auth/offline-access-not-supported",
        ),
        BROWSER,
    ),
    "auth/cross-app-access-complete-flow": "needs a person's ID token, from a sign-in with a browser",
}
"""Scenarios that no session can pass, by the reason."""
