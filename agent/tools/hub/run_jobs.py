"""`hub_job`: runs, schedules and ends jobs on Hugging Face's hardware."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.tools.hub.client import HubClient
from agent.tools.hub.jobs import NAME, namespace_of, render_job, render_scheduled
from agent.tools.hub.prices import DEFAULT_HARDWARE, DEFAULT_MINUTES, JobPrices
from agent.tools.tool import Tool, ToolError, parameters

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NEEDED = {
    "run": ("image", "command"),
    "schedule": ("image", "command", "schedule"),
    "cancel": ("job_id",),
    "run_scheduled": ("job_id",),
    "suspend_scheduled": ("job_id",),
    "resume_scheduled": ("job_id",),
    "delete_scheduled": ("job_id",),
}
"""The actions, and the arguments that each cannot do without."""


def job_tool(hub: HubClient, prices: JobPrices) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        token = hub.require_token()
        missing = [name for name in NEEDED[arguments["action"]] if name not in arguments]
        if missing:
            raise ToolError(f"{arguments['action']} needs {' and '.join(missing)}.")
        return await hub.call(lambda api: _act(api, arguments, token))

    return Tool(
        name="hub_job",
        description=(
            "Run a command in a container on Hugging Face's hardware. Now or on a schedule; also cancel a job, and run, "
            "suspend, resume or delete a scheduled one. It costs by the minute: choose the smallest hardware that does "
            "(see hub_jobs). The container has nothing but its image: pass code in the command, fetch data from the Hub and "
            "push results to it. For Python with packages: image ghcr.io/astral-sh/uv:python3.12-bookworm, command "
            '["uv", "run", "--with", "trl", "python", "-c", "…"].'
        ),
        parameters=parameters(
            "action",
            action={"enum": list(NEEDED)},
            image={"type": "string", "description": "Container image, or hf.co/spaces/owner/name."},
            command={"type": "array", "items": {"type": "string"}, "minItems": 1},
            hardware={"type": "string", "description": f"{DEFAULT_HARDWARE} unless given."},
            timeout_minutes={
                "type": "number",
                "exclusiveMinimum": 0,
                "description": f"It is stopped then; {DEFAULT_MINUTES} unless given.",
            },
            environment={"type": "object", "additionalProperties": {"type": "string"}, "description": "No secrets."},
            with_token={"type": "boolean", "description": "Give the job your token as HF_TOKEN, to push to the Hub."},
            schedule={"type": "string", "description": "@hourly, @daily, … or a cron expression."},
            job_id={"type": "string", "pattern": NAME},
            namespace={"type": "string", "pattern": NAME, "description": "Who pays: you unless given."},
        ),
        call=call,
        timeout=120,
        needs_consent=lambda arguments: consent(arguments, prices),
        price=lambda arguments: price(arguments, prices),
    )


def price(arguments: Mapping[str, Any], prices: JobPrices) -> float | None:
    """What a job costs that does nothing but cost, for a limited time. None where a person is to be asked in any case:
    a schedule has no end, a job with the token can do what the token can, and the other actions may end work.
    """
    if arguments["action"] != "run" or arguments.get("with_token"):
        return None
    return prices.most(_hardware(arguments), _minutes(arguments))


def consent(arguments: Mapping[str, Any], prices: JobPrices) -> str | None:
    """Calls that may cost money or end work ask. The Hub has no free hardware now; if it gets some, that does not ask."""
    action, hardware = arguments["action"], _hardware(arguments)
    if action not in ("run", "schedule"):
        return f"it would {action.replace('_', ' ')} job {arguments.get('job_id')} on the Hugging Face Hub"
    hourly, most = prices.hourly(hardware), prices.most(hardware, _minutes(arguments))
    if action == "run" and hourly == 0 and not arguments.get("with_token"):
        return None
    when = f"on the schedule {arguments.get('schedule')}" if action == "schedule" else "now"
    cost = f"at most ${most:.2f} a run (${hourly:.2f} an hour)" if most is not None else "at a price that is not known"
    token = ", with your token" if arguments.get("with_token") else ""
    return f"it would run a job on {hardware} {when}, {cost}{token}"


def _hardware(arguments: Mapping[str, Any]) -> str:
    return str(arguments.get("hardware", DEFAULT_HARDWARE))


def _minutes(arguments: Mapping[str, Any]) -> float:
    return float(arguments.get("timeout_minutes", DEFAULT_MINUTES))


def _act(api: HfApi, arguments: Mapping[str, Any], token: str) -> str:
    namespace = namespace_of(api, arguments)
    match arguments["action"]:
        case "run":
            return render_job(api.run_job(**_spec(arguments, token), namespace=namespace))
        case "schedule":
            scheduled = api.create_scheduled_job(**_spec(arguments, token), schedule=arguments["schedule"], namespace=namespace)
            return render_scheduled(scheduled)
        case "run_scheduled":
            return render_job(api.trigger_scheduled_job(scheduled_job_id=arguments["job_id"], namespace=namespace))
        case action:
            _end(api, action, arguments["job_id"], namespace)
            return f"{action} {arguments['job_id']}: done"


def _spec(arguments: Mapping[str, Any], token: str) -> dict[str, Any]:
    """What to run, for `run_job`: its sibling `run_uv_job` would upload files of this very container that the command
    names. Always with a time limit, so that a price can be named beforehand.
    """
    return {
        "image": arguments["image"],
        "command": arguments["command"],
        "flavor": _hardware(arguments),
        "timeout": math.ceil(_minutes(arguments) * 60),
        "env": arguments.get("environment"),
        "secrets": {"HF_TOKEN": token} if arguments.get("with_token") else None,
    }


def _end(api: HfApi, action: str, job: str, namespace: str) -> None:
    match action:
        case "cancel":
            api.cancel_job(job_id=job, namespace=namespace)
        case "suspend_scheduled":
            api.suspend_scheduled_job(scheduled_job_id=job, namespace=namespace)
        case "resume_scheduled":
            api.resume_scheduled_job(scheduled_job_id=job, namespace=namespace)
        case "delete_scheduled":
            api.delete_scheduled_job(scheduled_job_id=job, namespace=namespace)
