"""What a session pod runs: an HTTP/SSE server around one agent, its workspace server, and the client for both.

`wire` holds the types that cross a process boundary; it imports neither the agent nor a server, so that
the operator can use it.
"""
