"""The API of a session in Python: submit input, follow its events, read its state.

It needs httpx and nothing else of the runtime's dependencies: `pip install agentsession-operator[client]`.
"""

from session_runtime.client.client import ReceivedEvent, SessionClient, SessionError

__all__ = ["ReceivedEvent", "SessionClient", "SessionError"]
