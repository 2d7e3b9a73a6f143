"""What can go wrong with a model call, as types and as words for people.

A message says what happened and what to do, then what the provider said, cut to `MAX_WORDS` characters.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_WORDS = 600
"""Characters of the provider's own words in a message; an error page can have megabytes."""


class ModelError(Exception):
    """A model call failed, and the same call would fail again."""

    kind = "model"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """The provider's own wish in seconds, when it said one."""


class RequestRefusedError(ModelError):
    """The provider will not have the call as it is; `parameter` names what it does not like, where it said that."""

    kind = "refused"

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class ImagesRefusedError(RequestRefusedError):
    """The model takes no images, says its server."""


class CredentialsError(ModelError):
    """The provider does not accept the API key, or the key may not use the model."""

    kind = "auth"


class QuotaError(ModelError):
    """The account has no credit or quota left. Waiting does not help."""

    kind = "quota"


class WithheldError(ModelError):
    """The provider's content filter withheld the request or the answer."""

    kind = "content_filter"


class ModelUnavailableError(ModelError):
    """The connection broke, timed out, or the provider had a fault of its own."""

    kind = "unavailable"


class NoAnswerError(ModelError):
    """Something came that is no answer: no words and no calls, or not what was asked for."""

    kind = "no_answer"


class RateLimitedError(ModelError):
    """The provider asks for patience."""

    kind = "rate_limited"


class ContextOverflowError(ModelError):
    """The conversation is longer than the model's context window, or than one request may be."""

    kind = "context_overflow"

    def __init__(self, message: str, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        """Tokens that the model takes, where the provider said that. Its tokens are counted in another way than ours."""


@dataclass(frozen=True)
class Where:
    """Which model at which server a call was for, for messages."""

    model: str
    address: str = ""
    """Base URL of the server; empty for the provider's own, whose address litellm knows."""

    @property
    def server(self) -> str:
        if self.address:
            return f"the model server at {self.address}"
        provider, slash, _ = self.model.partition("/")
        return f"the model provider {provider}" if slash else "the model provider"

    @property
    def sentence(self) -> str:
        """As the beginning of a sentence."""
        return self.server[0].upper() + self.server[1:]


def with_words(message: str, words: str, server: str = "It") -> str:
    """The message with the provider's own words behind it, cut to a bound and on one line."""
    words = cut(" ".join(words.split()))
    return f"{message} {server} said: {words}" if words else message


def cut(words: str, most: int = MAX_WORDS) -> str:
    """The words, and about `most` characters of them: what is left out of a long text is its middle."""
    if len(words) <= most:
        return words
    return f"{words[: most * 2 // 3]} […] {words[-most // 3 :]}"
