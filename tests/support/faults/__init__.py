"""Faults between the operator and its API server, and a judge of the result.

- `request`: a request as the proxy sees it, and predicates over it.
- `rules`: what happens to a request or to a watch event. Rules are values.
- `proxy`: applies the rules to real traffic, numbers the writes and records every exchange.
- `judge`: the totally ordered history of sessions and pods, and whether the caps held at every event. Pure.
- `recorder`: takes the history from the API server, beside the proxy.
- `node`: a kubelet that follows orders.
- `world`: all of it around an operator that runs as a process of its own.
"""
