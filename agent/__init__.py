"""The agent loop: a library that knows neither Kubernetes nor HTTP servers.

This module imports nothing, so that `agent.workspace` (standard library only) can be used in images that have no more
than Python.
"""
