"""What a cluster's processes did: who ended, and the last lines of their logs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from .progress import say
from .state import Layout

_TAIL = 12


def ended_processes(layout: Layout) -> dict[str, int]:
    """Processes that ended, with their exit codes (negative: a signal)."""
    try:
        report = json.loads(layout.processes.read_text())
    except (OSError, ValueError):
        return {}
    return {name: entry["exit"] for name, entry in report.items() if entry["exit"] is not None}


def tail(path: Path, lines: int = _TAIL) -> list[str]:
    """The last lines of a log, each cut to a screen's width or two."""
    try:
        with path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - 20_000))
            text = log.read().decode(errors="replace")
    except OSError:
        return []
    return [line[:300] for line in text.splitlines()[-lines:]]


def explain(layout: Layout) -> None:
    """Shows the logs that matter after a failure: of what ended, else of what a cluster waits for."""
    suspects = list(ended_processes(layout)) or ["node", "kube-apiserver", "kubelet"]
    for name in suspects:
        path = layout.logs / f"{name}.log"
        lines = tail(path)
        if lines:
            say(f"   --- last lines of {path}")
            for line in lines:
                say(f"   {line}")


def export(layout: Layout, destination: Path) -> None:
    """Copies every log, those of pods included."""
    destination.mkdir(parents=True, exist_ok=True)
    shutil.copytree(layout.logs, destination / "node", dirs_exist_ok=True)
    pods = layout.directory / "node" / "var-log" / "pods"
    if pods.exists():
        shutil.copytree(pods, destination / "pods", dirs_exist_ok=True, ignore_dangling_symlinks=True)
