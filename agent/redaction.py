"""Keeps the values of credentials out of everything that leaves the agent, no matter what the model or a tool prints."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "[REDACTED]"

SURROGATE = re.compile("[\ud800-\udfff]")

MIN_LENGTH = 6
"""Shorter values are left alone: they would punch holes in ordinary text, and no credential is that short."""

MIN_BASE64 = 8
"""The least base64 characters that count as a trace of a value."""


class Redactor:
    """Replaces secret values in text: as they are, JSON- or URL-escaped, and base64-encoded at any alignment.

    Base64 that is wrapped in the middle of a value is not recognised.

    As all text passes through here, halves of surrogate pairs are replaced, too: tools get them from JSON, UTF-8 cannot
    carry them, and with one in a message every later request to the model would fail.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        # Longest first, so that of two values that begin alike the whole longer one is replaced.
        self._forms = sorted(
            {form for value in values if len(value) >= MIN_LENGTH for form in _forms(value)}, key=len, reverse=True
        )
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None
        self._first_characters = {form[0] for form in self._forms}
        self._longest = len(self._forms[0]) if self._forms else 0

    def text(self, text: str) -> str:
        """`text` with every secret masked."""
        text = SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
        return self._pattern.sub(MASK, text) if self._pattern else text

    def value(self, value: Any) -> Any:
        """A JSON value with every secret in its strings masked, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        return value

    def stream(self) -> RedactedStream:
        """For text that comes in pieces: a secret that is split over pieces is masked all the same."""
        return RedactedStream(self)

    def safe_length(self, text: str) -> int:
        """How much of the beginning of `text` can be masked now, no matter what text comes after it."""
        if self._pattern is None:
            return len(text)
        end = range(max(0, len(text) - self._longest), len(text))
        safe = next((at for at in end if self._may_begin(text, at)), len(text))
        for match in self._pattern.finditer(text):
            if match.end() > safe:  # the end of this secret is the beginning of another: keep it whole
                return min(safe, match.start())
        return safe

    def _may_begin(self, text: str, at: int) -> bool:
        return text[at] in self._first_characters and any(
            len(form) > len(text) - at and form.startswith(text[at:]) for form in self._forms
        )


class RedactedStream:
    """Holds back the end of the text for as long as it may be the beginning of a secret."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown now."""
        text = self._held + piece
        safe = self._redactor.safe_length(text)
        self._held = text[safe:]
        return self._redactor.text(text[:safe])

    def flush(self) -> str:
        """What was still held back; call it at the end of the text."""
        held, self._held = self._held, ""
        return self._redactor.text(held)


def _forms(value: str) -> set[str]:
    return {value} | _json_forms(value) | _url_forms(value) | _base64_forms(value.encode())


def _json_forms(value: str) -> set[str]:
    forms = {json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    return forms | {form.replace("/", "\\/") for form in forms}


def _url_forms(value: str) -> set[str]:
    """As a part of a path, of a query, of a form, and as JavaScript's encodeURIComponent has it; in either case."""
    forms = {quote(value, safe=""), quote(value, safe="/"), quote_plus(value), quote(value, safe="!'()*")}
    return forms | {re.sub("%..", lambda escape: escape[0].lower(), form) for form in forms}


def _base64_forms(value: bytes) -> set[str]:
    """The characters that base64 of any text with this value in it must hold.

    Three bytes become four characters, so there are three alignments; of each, the characters at the ends that also
    depend on the neighbouring bytes are left out.
    """
    forms = set()
    for shift in range(3):
        bits = 8 * (shift + len(value))
        first, last = -(-8 * shift // 6), bits // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            form = encode(bytes(shift) + value).decode()[first:last]
            if len(form) >= MIN_BASE64:
                forms.add(form)
    return forms
