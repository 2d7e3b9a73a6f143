"""The one assumption about requests that were not answered: each lands within a named time of being sent, or never.

A write whose answer is lost (a reset connection, a timeout, a killed operator) may still be on its way. Nothing on this side
can tell. Every rule about such writes rests on LANDING_SECONDS and on nothing else: until that time has passed since the write
was *sent*, it counts as carried out; a read that begins later settles it.

- A pod creation without an answer holds its slot (`control.session_objects`), and is not repeated.
- A leader that takes over from one that did not say goodbye, its own killed process included, admits nobody until the last
  write that its predecessor may have sent has landed (`lease.Lease.quiet_until`).
"""

from __future__ import annotations

from typing import Final

WRITE_SECONDS: Final = 5.0
"""Deadline of a write: at the client from sending, and at the API server (`?timeout=`) from arrival."""

TRANSIT_SECONDS: Final = 3.0
"""How long a request may travel before it arrives: proxies, load balancers, retransmissions."""

LANDING_SECONDS: Final = TRANSIT_SECONDS + WRITE_SECONDS
"""A request lands within this time of being sent, or never."""
