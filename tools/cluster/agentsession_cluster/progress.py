"""Progress lines on standard error: what is being done, how long it usually takes, how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(line: str) -> None:
    """Prints one line at once; standard output stays free for what a caller parses."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def step(what: str, usually: str = "") -> Iterator[None]:
    """Says `what` before the block and the seconds it took after it; a block that fails is said to have failed."""
    say(f" • {what}{f' (usually {usually})' if usually else ''} ...")
    start = time.monotonic()
    try:
        yield
    except BaseException:
        say(f" ✗ {what}: failed after {time.monotonic() - start:.1f} s")
        raise
    say(f" ✓ {what}: {time.monotonic() - start:.1f} s")
