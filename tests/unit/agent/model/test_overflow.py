"""Too long a request, in the words of many servers."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from agent.model.classify import http_error
from agent.model.failure import (
    ContextOverflowError,
    ImagesRefusedError,
    ModelError,
    ModelUnavailableError,
    RateLimitedError,
    RequestRefusedError,
    Where,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def error(message: str, **more: object) -> str:
    return json.dumps({"error": {"message": message, **more}})


OPENAI = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
VLLM = "This model's maximum context length is 512 tokens. However, you requested 900 tokens."
VLLM_NEW = "The decoder prompt (length 9001) is longer than the maximum model length of 8192."
SGLANG = "The input (9001 tokens) is longer than the model's context length (8192 tokens)."
LLAMA = "the request exceeds the available context size (8192 tokens), try increasing it"
LM_STUDIO = "Trying to keep the first 9001 tokens when context the overflows."
LM_STUDIO_2 = "The number of tokens to keep from the initial prompt is greater than the context length."
ANTHROPIC = "prompt is too long: 210000 tokens > 200000 maximum"
ANTHROPIC_2 = "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length"
BEDROCK = "Input is too long for requested model."
BEDROCK_2 = "Too many input tokens. Max input tokens: 8192, request input token count: 9001"
GEMINI = "The input token count (1300000) exceeds the maximum number of tokens allowed (1048576)."
TGI = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 9001 `inputs` tokens"
TGI_2 = "Input validation error: `inputs` must have less than 4095 tokens. Given: 9001"
MISTRAL = "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length"
COHERE = "too many tokens: total number of tokens in the prompt cannot exceed 4081"
GROQ = "Please reduce the length of the messages or completion."
TOGETHER = "The input length and `max_new_tokens` must be <= 4097. Given: 9001 `inputs` tokens and 512 `max_new_tokens`"
FIREWORKS = "The prompt is too long: 9001, model maximum context length: 8191"
OPENROUTER = "This endpoint's maximum context length is 8192 tokens. However, you requested about 9001 tokens."
COPILOT = "prompt token count of 9001 exceeds the limit of 8192"
XAI = "This model's maximum prompt length is 131072 but the request contains 537812 tokens."
DEEPSEEK = "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens"
QWEN = "Range of input length should be [1, 6000]: input length exceeds the limit"
GITHUB = "Request body too large for gpt-4o model. Max size: 8000 tokens."
OLLAMA = "the input length exceeds the context length"
WATSONX = "the number of input tokens 9001 cannot exceed the total tokens limit 8192 for this model"
MINIMAX = "invalid params, context window exceeds limit (2013)"
NGINX = "<html><head><title>413 Request Entity Too Large</title></head><body></body></html>"
WRAPPED = json.dumps({"error": {"message": 'Provider returned error: {"message":"' + BEDROCK + '"}', "code": 400}})
LITELLM = f"litellm.BadRequestError: AnthropicException - {error(ANTHROPIC)}. Received Model Group=claude"

BODIES: list[tuple[int, str, int | None]] = [
    (400, error(OPENAI, code="context_length_exceeded"), 8192),
    (400, json.dumps({"object": "error", "message": VLLM, "code": 400}), 512),
    (400, error(VLLM_NEW), 8192),
    (400, error(SGLANG), None),
    (400, json.dumps({"error": {"type": "exceed_context_size_error", "message": LLAMA, "n_ctx": 8192}}), 8192),
    (500, json.dumps({"error": {"message": LLAMA}}), 8192),
    (400, error(LM_STUDIO), None),
    (400, json.dumps({"error": LM_STUDIO_2}), None),
    (400, error(ANTHROPIC), 200000),
    (400, error(ANTHROPIC_2), None),
    (400, json.dumps({"message": BEDROCK}), None),
    (400, json.dumps({"message": BEDROCK_2}), 8192),
    (400, json.dumps([{"error": {"code": 400, "message": GEMINI, "status": "INVALID_ARGUMENT"}}]), 1048576),
    (422, json.dumps({"error": TGI, "error_type": "validation"}), 4096),
    (422, json.dumps({"error": TGI_2}), 4095),
    (400, json.dumps({"object": "error", "message": MISTRAL, "type": "invalid_request_prompt"}), None),
    (400, json.dumps({"message": COHERE}), 4081),
    (413, error(GROQ, code="context_length_exceeded"), None),
    (400, error(GROQ), None),
    (422, error(TOGETHER), 4097),
    (400, error(FIREWORKS), 8191),
    (400, error(OPENROUTER, code=400), 8192),
    (400, error(COPILOT, code="model_max_prompt_tokens_exceeded"), 8192),
    (400, json.dumps({"code": "Client specified an invalid argument", "error": XAI}), 131072),
    (400, error(DEEPSEEK), 65536),
    (400, error(QWEN), None),
    (413, error(GITHUB, code="tokens_limit_reached"), 8000),
    (500, json.dumps({"error": OLLAMA}), None),
    (400, json.dumps({"errors": [{"code": "invalid_input_argument", "message": WATSONX}]}), None),
    (400, error(MINIMAX), None),
    (413, NGINX, None),
    (413, "", None),
    (400, WRAPPED, None),
    (400, error(LITELLM), 200000),
]


def classified(status: int, body: str) -> ModelError:
    return http_error(status, {}, body, Where("some-model"), NOW)


@pytest.mark.parametrize(("status", "body", "limit"), BODIES)
def test_too_long_a_request_is_recognized(status: int, body: str, limit: int | None) -> None:
    failure = classified(status, body)
    assert type(failure) is ContextOverflowError
    if limit is not None:
        assert failure.limit == limit


NO_IMAGES = [
    (500, error("image input is not supported - hint: if this is unexpected, you may need to provide the mmproj")),  # llama.cpp
    (500, error('Failed to parse messages: Unsupported content part type: "image_url"; messages = [...]')),
    (400, error("Invalid content type. image_url is only supported by certain models.")),  # OpenAI
    (404, error("No endpoints found that support image input")),  # OpenRouter
    (400, error("some-model is not a multimodal model")),  # vLLM
    (422, error("Failed to deserialize: messages[3]: unknown variant `image_url`, expected `text`")),  # DeepSeek
]


@pytest.mark.parametrize(("status", "body"), NO_IMAGES)
def test_a_server_that_takes_no_images_says_so(status: int, body: str) -> None:
    failure = classified(status, body)
    assert type(failure) is ImagesRefusedError
    assert "takes no images" in str(failure)


@pytest.mark.parametrize(
    "words", ["Could not process image", "You uploaded an unsupported image.", "image exceeds 5 MB maximum"]
)
def test_a_server_that_refuses_one_image_may_take_others(words: str) -> None:
    assert type(classified(400, error(words))) is RequestRefusedError


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error("Invalid 'tools[0].function.name': string does not match pattern."), RequestRefusedError),
        (400, error("Unknown parameter: 'max_input_tokenz'."), RequestRefusedError),
        (400, error("Missing required parameter: 'messages[0].content'."), RequestRefusedError),
        (400, error("max_tokens is too large: 9000. This model supports at most 4096 completion tokens."), RequestRefusedError),
        (422, json.dumps({"detail": [{"loc": ["body", "tools"], "msg": "field required"}]}), RequestRefusedError),
        (500, error("CUDA out of memory"), ModelUnavailableError),
        (503, "upstream connect error or disconnect/reset before headers. reset reason: overflow", ModelUnavailableError),
        (429, error("Rate limit reached: Limit 30000, Used 29000, Requested 4000"), RateLimitedError),
        (429, error("Number of request tokens has exceeded your per-minute rate limit"), RateLimitedError),
    ],
)
def test_other_errors_are_not_taken_for_it(status: int, body: str, expected: type[ModelError]) -> None:
    assert type(classified(status, body)) is expected
