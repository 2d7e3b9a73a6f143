"""The small model of the demo: llama.cpp behind an OpenAI-compatible API. Only the local-model image runs it."""
