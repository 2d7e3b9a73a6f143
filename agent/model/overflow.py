"""How servers say that a request is too long for their model. There is no standard: some have a code, most have a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable

CODES = frozenset(
    {
        "context_length_exceeded",  # OpenAI, Azure, DeepSeek, Groq
        "exceed_context_size_error",  # llama.cpp
        "string_above_max_length",  # OpenAI, for one message that is too long
        "request_too_large",  # Anthropic, 413
        "model_max_prompt_tokens_exceeded",  # GitHub Models, Copilot
        "max_tokens_exceeded",
        "context_window_exceeded",
        "tokens_limit_reached",  # GitHub Models, 413
        "prompt_too_long",
    }
)

LEAST_WINDOW = 256
"""Tokens; no model takes fewer."""

_WHAT = r"(context|input|prompt|sequence|token|message|conversation)s?"
_MEASURE = r"(window|length|size|limit|maximum|tokens?)s?"
_PATTERNS = re.compile(
    "|".join(
        (
            r"maximum (context|model|sequence|prompt|input) (length|len)",  # OpenAI, vLLM, SGLang, OpenRouter, Mistral
            rf"{_WHAT}[ _-]{_MEASURE}\b.{{0,80}}?(exceed|too (long|large|big)|(larg|long|great)er than|reached|surpass|full)",
            rf"(exceed|surpass|((larg|long|great)er|more) than|over the)\w*\b.{{0,60}}?{_WHAT}['’]?s?.{{0,20}}?[ _-]{_MEASURE}",
            rf"(exceed|surpass)\w*\b.{{0,60}}?\bmax\w*[ _-](number of )?{_WHAT}",
            # Anthropic: "prompt is too long: 210000 tokens > 200000 maximum"
            r"(context|input|prompt|sequence|message|conversation|request|text|content|query)s? (is|are|was|has)? ?(way |far )?"
            r"too (long|large|big|many)",
            r"too many (input |prompt |total |context )?tokens",  # Bedrock, Cohere
            # Google, Text Generation Inference
            r"(input|prompt|request)s?\b.{0,40}?tokens?.{0,60}?exceed",
            r"(input|prompt|request)s?\b.{0,100}?must (be|have) (<=?|less|at most|fewer|shorter)",
            r"reduce (the |your )?(length|size|number of tokens|prompt|input|context|messages)",  # OpenAI, Groq, Together
            r"(doesn['’]?t|does not|do not|cannot|can['’]t|won['’]?t|not) fit.{0,40}?(context|window|n_ctx|model)",  # LM Studio
            r"\bn_ctx\b|\bnum_ctx\b|max_model_len|max_position_embeddings|max_seq_len|max_input_tokens",
            r"context overflow|context the overflows",  # LM Studio
            r"(payload|request entity|body|content|request) (is )?too large",  # nginx and other proxies: 413
            r"string too long",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)

_LIMIT = re.compile(r"limit:? (\d+).{0,80}?requested:? (\d+)", re.IGNORECASE | re.DOTALL)


def means_overflow(codes: Iterable[object], text: str) -> bool:
    """Whether an error with these codes and this text says that the request has too many tokens."""
    return any(str(code).lower() in CODES for code in codes) or _PATTERNS.search(text[:5000]) is not None


def exceeds_the_limit_per_minute(text: str) -> bool:
    """Whether a rate limit says that this one request is larger than what a minute allows, so that waiting does not help."""
    text = text[:5000]
    numbers = _LIMIT.search(text)
    return "request too large" in text.lower() or (numbers is not None and int(numbers[2]) > int(numbers[1]))


_LIMITS = re.compile(
    r"(?:\b(?:maximum|available|supported|n_ctx|context|limit|at most|up to|less than|fewer than|exceed|max)\b|<=)"
    r"[^.\d]{0,60}?(?P<after>\d[\d,]{2,10})"
    r"|> (?P<maximum>\d{3,10}) maximum",
    re.IGNORECASE,
)


def limit_in(text: str) -> int | None:
    """The number of tokens that the model takes, where the server says it; None if it does not.

    What is read here may be another number, so it only counts as far as it is less than what was refused.
    """
    found = (int((match["after"] or match["maximum"]).replace(",", "")) for match in _LIMITS.finditer(text[:5000]))
    return next((number for number in found if number >= LEAST_WINDOW), None)
