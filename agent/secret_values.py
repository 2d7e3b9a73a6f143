"""What of a named value is secret: keys are, regions, addresses, versions and names are not.

A Secret of a session, or the environment of a terminal, also holds settings of a provider's client. Masking those would punch
holes in ordinary text: `us-east-1` is no key, even where it is stored beside one. In doubt a value counts as secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

_SECRET_NAME = re.compile(
    r".*(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?|PAT|PWD|PASS|AUTH|AUTHORIZATION|SIG|SIGNATURE"
)
"""The last word of a name whose value is secret."""

_SETTING_NAME = re.compile(
    r"REGION|ZONE|LOCATION|URL|URI|ENDPOINT|HOST|HOSTNAME|DOMAIN|PORT|BASE|ADDRESS|SERVER|VERSION|MODEL|DEPLOYMENT|ENGINE"
    r"|PROJECT|ORG|ORGANIZATION|TEAM|TENANT|ACCOUNT|SUBSCRIPTION|WORKSPACE|NAMESPACE|CLUSTER|BUCKET|DATABASE|NAME|USER"
    r"|USERNAME|LOGIN|EMAIL|ID|PROFILE|ENV|ENVIRONMENT|STAGE|MODE|TYPE|PROVIDER|LEVEL|FORMAT|TIMEOUT|LIMIT|SIZE|COUNT|PATH"
    r"|FILE|DIR|FOLDER|LAYOUT|LANG|LOCALE|TZ|TIMEZONE"
)
"""The last word of a name whose value is no secret, unless it looks like a key."""

_DIRECTIONS = r"(north|south|east|west|central|northeast|northwest|southeast|southwest)"

_NEVER_SECRET = re.compile(
    # Regions and zones of AWS, Google Cloud and Azure.
    r"(us|eu|ap|sa|ca|me|af|il|mx|cn|asia|europe|northamerica|southamerica|australia|africa)"
    rf"(-(gov|iso|isob))?-{_DIRECTIONS}-?\d{{1,2}}(-?[a-z])?"
    rf"|{_DIRECTIONS}?(us|europe|asia|india|uk|canada|australia|japan|brazil|france|germany){_DIRECTIONS}?\d?"
    r"|v?\d{1,6}(\.\d{1,6}){1,3}([-+.](alpha|beta|rc|dev|preview|latest|post)[.\d]*)?"
    r"|\d{4}-\d\d-\d\d(-preview|-latest)?"
    r"|(?i:true|false|yes|no|none|null|auto|default|enabled|disabled)"
)

_SETTING = re.compile(
    r"[+-]?\d{1,9}(\.\d{1,9})?"
    r"|(localhost|\d{1,3}(\.\d{1,3}){3}|([a-z0-9-]{1,63}\.)+[a-z]{2,10})(:\d{1,5})?"
    r"|~?(/[\w.@ -]+)+/?"
    r"|([a-z0-9_.-]+/)*(gpt|o\d|claude|gemini|gemma|llama|mistral|mixtral|qwen|deepseek|command|phi|grok)[-.\d][a-z0-9.:-]*"
)
"""Values that count as no secret where the name does not say that they are one: numbers, hosts, paths, models."""

_KEY_RUN = 16
"""Letters and digits mixed, without a break: a name or a version has no run of that length."""

_PAIR = re.compile(r"\s*([A-Za-z][\w ]*?)\s*=(.*)", re.DOTALL)


def secret_parts(name: str, value: str) -> tuple[str, ...]:
    """What must not be shown of a value with this name: all of it, parts of it (the password in an address, the key in a JSON
    document), or nothing."""
    return tuple(dict.fromkeys(_parts(name, value.strip())))


def _parts(name: str, value: str) -> Iterator[str]:
    if not value or _NEVER_SECRET.fullmatch(value):
        return
    if (document := _json_object(value)) is not None:
        yield value
        yield from _of_json(name, document)
    elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", value) and not re.search(r"\s", value):
        yield from _of_address(value)
    elif pairs := _pairs(value):
        yield value
        for key, inner in pairs:
            yield from _parts(key, inner)
    elif _is_secret(name, value):
        yield value


def _is_secret(name: str, value: str) -> bool:
    words = re.findall(r"[A-Z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper())
    last = words[-1] if words else ""
    if _looks_like_a_key(value):
        return True
    if _SETTING_NAME.fullmatch(last) or (last == "TOKENS" and value.isdecimal()):
        return False
    return bool(_SECRET_NAME.fullmatch(last)) or not _SETTING.fullmatch(value)


def _looks_like_a_key(value: str) -> bool:
    if re.match(r"(sk|pk|rk|hf|gh[a-z]|glpat|xox[a-z]|github_pat)[-_]\S{8}", value) or "PRIVATE KEY-----" in value:
        return True
    runs = re.findall(rf"[A-Za-z0-9]{{{_KEY_RUN},}}", value)
    return any(re.search(r"\d", run) and re.search(r"[A-Za-z]", run) for run in runs)


def _json_object(value: str) -> dict[str, object] | None:
    if not value.startswith("{"):
        return None
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _of_json(name: str, value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from _parts(name, value.strip())
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _of_json(key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _of_json(name, inner)


def _of_address(value: str) -> Iterator[str]:
    """The password in an address, keys in its query, and parts of its path that look like keys (webhooks have those)."""
    try:
        address = urlsplit(value)
    except ValueError:
        yield value
        return
    credentials = address.netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    for secret in (password, user if not password or _looks_like_a_key(user) else ""):
        yield from {secret, unquote(secret)} - {""}
    for key, inner in parse_qsl(address.query):
        yield from _parts(key, inner)
    yield from (part for part in address.path.split("/") if _looks_like_a_key(part))


def _pairs(value: str) -> list[tuple[str, str]]:
    """The pairs of a connection string, `Server=db;Password=...`; none if it is not one."""
    pieces = [piece for piece in value.split(";") if piece.strip()]
    pairs = [found.groups() for piece in pieces if (found := _PAIR.fullmatch(piece))]
    return [(key, inner.strip()) for key, inner in pairs] if len(pairs) == len(pieces) > 1 else []
