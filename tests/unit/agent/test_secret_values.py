from __future__ import annotations

import json

import pytest

from agent.secret_values import secret_parts

KEY = "sk-proj-0123456789abcdefghij"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_REGION_NAME", "us-east-1"),
        ("AWS_KEY", "us-gov-west-1"),
        ("VERTEXAI_LOCATION", "europe-west4"),
        ("AZURE_KEY_REGION", "westeurope"),
        ("AZURE_API_VERSION", "2024-10-01-preview"),
        ("KEY_VERSION", "1.2.3-rc.1"),
        ("AZURE_API_BASE", "https://me.openai.azure.com/v1?api-version=2024-10-01"),
        ("OPENAI_API_KEY", "http://localhost:8000/v1"),
        ("VERTEXAI_PROJECT", "my-project-123456"),
        ("OPENAI_MODEL", "openai/gpt-5-mini"),
        ("fast", "claude-sonnet-4-5-20250929"),
        ("KEYBOARD_LAYOUT", "us-intl"),
        ("MAX_TOKENS", "100000"),
        ("USE_TOKEN", "disabled"),
        ("SSH_KEY_PATH", "/home/ann/.ssh/id_ed25519"),
        ("somewhere", "/etc/ssl/certs"),
        ("there", "db.example.com:5432"),
        ("AZURE_CLIENT_ID", "72f988bf-86f1-41af-91ab-2d7cd011db47"),
        ("EMPTY_KEY", " "),
    ],
)
def test_settings_are_no_secrets(name: str, value: str) -> None:
    assert secret_parts(name, value) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", KEY),
        ("apiKey", "correct horse"),
        ("DB_PASSWORD", "12345678"),
        ("DB_PASSWORD", "db.example.com"),
        ("HF_TOKEN", "a-very-secret-token"),
        ("A", "secret"),
        ("", "of-the-header"),
        ("PROJECT_NAME", KEY),  # the name is wrong, or two values were swapped
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("somewhere", "/9j4AAQSkZJRgABAQAAAQABAAD"),
        ("KEY_FILE", PEM),
        ("odd", "{not json"),
        ("bad", "http://[::1"),
    ],
)
def test_keys_are_secret_whole(name: str, value: str) -> None:
    assert secret_parts(name, value) == (value,)


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("postgres://ann:p%40ss+word@db.example.com/main", {"p%40ss+word", "p@ss+word"}),
        ("https://x-token@git.example.com/repo", {"x-token"}),
        ("https://hooks.example.com/services/T024BE7LD/aBcDeFgHiJkLmNoPqR0123", {"aBcDeFgHiJkLmNoPqR0123"}),
        ("https://api.example.com/v1?region=eu-west-1&api_key=correct-horse", {"correct-horse"}),
    ],
)
def test_of_an_address_only_the_credentials_are_secret(value: str, secret: set[str]) -> None:
    assert set(secret_parts("DATABASE_URL", value)) == secret


def test_of_a_document_the_keys_are_secret_by_themselves() -> None:
    account = {"type": "service_account", "project_id": "my-project", "private_key": PEM, "scopes": ["a/b", KEY], "n": 1}
    value = json.dumps(account)
    assert set(secret_parts("GOOGLE_CREDENTIALS", value)) == {value, PEM, "a/b", KEY}
    value = "Server=db.example.com;User Id=ann;Password=correct horse;"
    assert set(secret_parts("CONNECTION", value)) == {value, "correct horse"}
