"""JSON as the Hub answers it, for `hub_server`; each shape is what huggingface_hub's parser of it reads."""

from __future__ import annotations

from typing import Any

TIME = "2026-05-01T12:00:00.000Z"
COMMIT = "1f2e3d4c5b6a79880716253443526170f0e1d2c3"
AUTHOR = {"name": "ann", "type": "user"}


def comment(text: str) -> dict[str, Any]:
    data = {"edited": False, "hidden": False, "latest": {"raw": text, "html": text, "updatedAt": TIME}, "history": []}
    return {"id": "1", "type": "comment", "createdAt": TIME, "author": AUTHOR, "data": data}


def discussion(number: int, title: str, repo: str, kind: str = "model", pull_request: bool = False) -> dict[str, Any]:
    about = {"num": number, "title": title, "author": AUTHOR, "createdAt": TIME, "repo": {"name": repo, "type": kind}}
    changes = {"changes": {"base": "refs/heads/main"}, "filesWithConflicts": [], "diff": "--- a/x\n+++ b/x\n+new"}
    state = {"status": "draft" if pull_request else "open", "isPullRequest": pull_request, "events": [comment("Look at this.")]}
    return {**about, **state, **(changes if pull_request else {})}


def job(name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    state = {"status": {"stage": "RUNNING", "message": None}, "owner": {"id": "1", "name": namespace, "type": "user"}}
    what = {part: spec.get(part) for part in ("dockerImage", "spaceId", "command", "flavor", "environment")}
    times = {"createdAt": TIME, "startedAt": TIME, "durations": {"schedulingSecs": 4, "runningSecs": 61, "totalSecs": 65}}
    return {"id": name, "arguments": [], "secrets": dict.fromkeys(spec.get("secrets", {})), **what, **state, **times}


HARDWARE = [
    {
        "name": "cpu-basic",
        "prettyName": "CPU Basic",
        "cpu": "2 vCPU",
        "ram": "16 GB",
        "ephemeralStorage": "50 GB",
        "accelerator": None,
        "unitCostMicroUSD": 0,
        "unitCostUSD": 0.0,
        "unitLabel": "minute",
    },
    {
        "name": "t4-small",
        "prettyName": "Nvidia T4 - small",
        "cpu": "4 vCPU",
        "ram": "15 GB",
        "ephemeralStorage": "50 GB",
        "accelerator": {"type": "gpu", "model": "T4", "quantity": "1", "vram": "16 GB", "manufacturer": "Nvidia"},
        "unitCostMicroUSD": 10000,
        "unitCostUSD": 0.01,
        "unitLabel": "minute",
    },
]

PAPER = {
    "id": "2307.09288",
    "title": "Llama 2",
    "publishedAt": TIME,
    "summary": "We develop and release Llama 2.",
    "upvotes": 250,
    "authors": [{"name": "Hugo Touvron"}],
    "linkedModels": [{"id": "meta-llama/Llama-2-7b"}],
}
