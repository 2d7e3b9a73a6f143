"""Times as the API writes them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """`moment` (aware) as Kubernetes writes times. Such texts compare as times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object) -> datetime | None:
    """The time that a text says, in UTC; None where it says none.

    The API server's format `date-time` admits texts that Python cannot read (a lower-case `t`, offsets of 99 hours), and a
    pod's status can be written by anybody who may: an odd time is an absent one, never an error.
    """
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
