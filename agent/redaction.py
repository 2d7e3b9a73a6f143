"""Keeps the values of credentials out of everything that leaves the agent, no matter what the model or a tool prints."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "[REDACTED]"

SURROGATE = re.compile("[\ud800-\udfff]")

MIN_LENGTH = 6
"""Shorter values are left alone: they would punch holes in ordinary text, and no credential is that short."""

MIN_BASE64 = 8
"""The least base64 characters that count as a trace of a value."""


class UnclearMask(ValueError):
    """A mask stands for one of several values, and nothing says for which."""


def without_surrogates(value: Any) -> Any:
    """A JSON value with halves of surrogate pairs replaced, keys included.

    Tools and models get them from JSON, UTF-8 cannot carry them, and with one in a message every later request to the model
    would fail.
    """
    return _mapped(value, lambda text: SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text))


class Redactor:
    """Replaces secret values in text: as they are, JSON- or URL-escaped, and base64-encoded at any alignment. Of a value with
    several lines each line is secret by itself, but for those of dashes around a PEM key.

    Base64 that is wrapped in the middle of a value is not recognized. As all text passes through here, halves of surrogate
    pairs are replaced, too.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        # Longest first, so that of two values that begin alike the whole longer one is replaced.
        self._forms = sorted(
            {form for value in values if len(value) >= MIN_LENGTH for form in _forms(value)}, key=len, reverse=True
        )
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None
        self._first_characters = {form[0] for form in self._forms}
        self._longest = len(self._forms[0]) if self._forms else 0
        self._shown_as_mask = re.compile("|".join(map(re.escape, (*self._forms, MASK))))

    def text(self, text: str) -> str:
        """`text` with every secret masked."""
        text = SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
        return self._pattern.sub(MASK, text) if self._pattern else text

    def originals(self, masked: str, text: str) -> list[str]:
        """The pieces of `text` that are shown as `masked`, which do not overlap, in order.

        A mask in `text` itself, which no secret is behind, counts as shown, too.
        """
        shown, origin, at = [], [], 0
        for hidden in self._shown_as_mask.finditer(text):
            shown += [text[at : hidden.start()], MASK]
            origin += [*range(at, hidden.start()), hidden.start(), *[-1] * (len(MASK) - 1)]
            at = hidden.end()
        whole = "".join((*shown, text[at:]))
        origin += range(at, len(text) + 1)
        found = ((origin[m.start()], origin[m.end()]) for m in re.finditer(re.escape(masked), whole))
        return [text[start:end] for start, end in found if start >= 0 and end >= 0]

    def restored(self, value: Any, original: Any) -> Any:
        """A JSON value with the masks in its strings replaced by what they stand for in `original`, at the same place.

        A mask stands for the hidden text with the same words before it on its line; else for the only one; else for that
        with its number, where there are as many masks. Raises UnclearMask for other masks. Without anything hidden in the
        original the value stays as it is.
        """
        if isinstance(value, str) and isinstance(original, str):
            return self._restored(value, original)
        if isinstance(value, list | tuple) and isinstance(original, list | tuple):
            pairs = zip_longest(value, original[: len(value)])
            return [self.restored(item, before) for item, before in pairs]
        if isinstance(value, dict) and isinstance(original, dict):
            return {key: self.restored(item, original.get(key)) for key, item in value.items()}
        return value

    def _restored(self, text: str, original: str) -> str:
        hidden = [(_label(original, m.start()), m.group()) for m in self._shown_as_mask.finditer(original)]
        masks = list(re.finditer(re.escape(MASK), text))
        if not hidden or not masks:
            return text
        pieces, at = [], 0
        for number, mask in enumerate(masks):
            label = _label(text, mask.start())
            meant = {value for before, value in hidden if self.text(before) == label} or {value for _, value in hidden}
            if len(meant) > 1 and len(hidden) != len(masks):
                raise UnclearMask(f"{MASK} stands for one of {len(hidden)} hidden values, and it is unclear for which")
            pieces += [text[at : mask.start()], meant.pop() if len(meant) == 1 else hidden[number][1]]
            at = mask.end()
        return "".join((*pieces, text[at:]))

    def value(self, value: Any) -> Any:
        """A JSON value with every secret in its strings masked, keys included."""
        return _mapped(value, self.text)

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


NO_SECRETS = Redactor()


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


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with all its strings changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {change(str(key)): _mapped(item, change) for key, item in value.items()}
    return value


def _label(text: str, at: int) -> str:
    """What stands before a place on its line."""
    return text[text.rfind("\n", 0, at) + 1 : at].strip()


def _forms(value: str) -> set[str]:
    return _lines(value) | _json_forms(value) | _url_forms(value) | _base64_forms(value.encode())


def _lines(value: str) -> set[str]:
    """The value, or those of its lines that can be masked: a tool may number lines, or show some of them only."""
    lines = {line.strip() for line in value.splitlines()}
    return {line for line in lines if len(line) >= MIN_LENGTH and not line.startswith("-----")} or {value}


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
