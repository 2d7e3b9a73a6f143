"""Journals that write, at a time that stands still."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from session_runtime.session.journal import (
    Journal,
)
from session_runtime.session.store import Store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)


@asynccontextmanager
async def open_journal(folder: Path, **options: int) -> AsyncIterator[Journal]:

    store = Store(folder)
    journal = Journal(store, store.load().last_seq, lambda: NOW, **options)
    running = asyncio.create_task(journal.run())
    try:
        yield journal
    finally:
        journal.close()
        running.cancel()
        with suppress(asyncio.CancelledError, sqlite3.Error):
            await running
        await journal.release()
