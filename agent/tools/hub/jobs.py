"""`hub_jobs`: looks at jobs on Hugging Face's hardware."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from agent.tools.hub.client import HubClient
from agent.tools.hub.prices import JobPrices
from agent.tools.hub.text import facts, minute, shorten
from agent.tools.tool import Tool, ToolError, parameters

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo
    from huggingface_hub._jobs_api import JobHardwareInfo, JobSpec, ScheduledJobInfo

LOG_LINES = 200
"""Lines of a job's log that one call returns, unless the model asks for more."""

JOBS = 30
"""Jobs that one call lists."""

LONGEST_WAIT = 600
"""Seconds that one call waits for the end of a job, at most."""

LOG_SECONDS = 10.0
"""How long a log is read: that of a job at work has no end."""

POLL = 5.0
"""Seconds between two looks at a job that is waited for."""

ENDED = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
"""Stages after which a job does not change any more (`TERMINAL_JOB_STAGES` of huggingface_hub)."""

NAME = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Pattern of what becomes a part of an address."""


def jobs_tool(hub: HubClient, prices: JobPrices) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        if arguments["view"] != "hardware":
            hub.require_token()
        if arguments["view"] in ("job", "logs") and "job_id" not in arguments:
            raise ToolError(f"view={arguments['view']} needs job_id.")
        if arguments["view"] == "job":
            return await _wait_for(hub, arguments)
        return await hub.call(lambda api: _look(api, prices, arguments))

    return Tool(
        name="hub_jobs",
        description=(
            "Look at jobs on Hugging Face's hardware. There are views of the hardware with its prices, of your jobs, of one "
            "job (with wait it comes when the job has ended: do not ask again and again), of its logs, and of scheduled jobs."
        ),
        parameters=parameters(
            "view",
            view={"enum": ["hardware", "list", "job", "logs", "scheduled"]},
            job_id={"type": "string", "pattern": NAME},
            wait={
                "type": "number",
                "minimum": 0,
                "maximum": LONGEST_WAIT,
                "description": "With view=job: seconds to wait for its end.",
            },
            lines={"type": "integer", "minimum": 1, "maximum": 5000, "description": f"Last lines; {LOG_LINES} unless given."},
            namespace={"type": "string", "pattern": NAME, "description": "User or organization; yourself unless given."},
        ),
        call=call,
        timeout=LONGEST_WAIT + 60,
        read_only=True,
    )


def namespace_of(api: HfApi, arguments: Mapping[str, Any]) -> str:
    """Whose jobs are meant. Always passed on: left to itself, `list_jobs` asks who is logged in on this machine."""
    return str(arguments.get("namespace") or api.whoami(cache=True)["name"])


async def _wait_for(hub: HubClient, arguments: Mapping[str, Any]) -> str:
    until = time.monotonic() + arguments.get("wait", 0)
    while True:
        job = await hub.call(lambda api: api.inspect_job(job_id=arguments["job_id"], namespace=namespace_of(api, arguments)))
        left = until - time.monotonic()
        if job.status.stage in ENDED or left <= 0:
            return render_job(job)
        await asyncio.sleep(min(POLL, left))


def _look(api: HfApi, prices: JobPrices, arguments: Mapping[str, Any]) -> str:
    match arguments["view"]:
        case "hardware":
            hardware = api.list_jobs_hardware()
            prices.learn(hardware)
            return "\n".join(_hardware(one, prices) for one in hardware)
        case "list":
            jobs = list(islice(api.list_jobs(namespace=namespace_of(api, arguments)), JOBS + 1))
            more = ["[older ones are left out]"] if len(jobs) > JOBS else []
            return "\n".join([*map(_line, jobs[:JOBS]), *more]) or "There are no jobs."
        case "logs":
            return _logs(api, arguments)
        case _:
            scheduled = api.list_scheduled_jobs(namespace=namespace_of(api, arguments))
            return "\n".join(map(render_scheduled, scheduled)) or "There are no scheduled jobs."


def _logs(api: HfApi, arguments: Mapping[str, Any]) -> str:
    wanted = arguments.get("lines", LOG_LINES)
    logs = api.fetch_job_logs(job_id=arguments["job_id"], namespace=namespace_of(api, arguments), tail=wanted)
    until = time.monotonic() + LOG_SECONDS
    lines: deque[str] = deque(maxlen=wanted)
    for line in logs:
        lines.append(line.rstrip("\n"))
        if time.monotonic() > until:
            break
    return "\n".join(lines) or "[no output yet]"


def _hardware(one: JobHardwareInfo, prices: JobPrices) -> str:
    accelerator = f"{one.accelerator.quantity}x {one.accelerator.model} {one.accelerator.vram}" if one.accelerator else None
    hourly = prices.hourly(one.name)
    price = f"${hourly:.2f} an hour" if hourly is not None else f"${one.unit_cost_usd} a {one.unit_label}"
    return facts(one.name, price, accelerator, one.cpu, f"{one.ram} memory", f"{one.ephemeral_storage} disk")


def _line(job: JobInfo) -> str:
    command = shorten(" ".join(job.command or []), 80)
    return facts(job.id, job.status.stage, job.flavor, minute(job.created_at), job.docker_image or job.space_id, command)


def render_job(job: JobInfo) -> str:
    """What a model wants to know of a job. Its secrets and environment are named only."""
    running = f"{job.durations.running_secs} s running" if job.durations and job.durations.running_secs else None
    return "\n".join(
        (
            facts(f"job {job.id}", job.status.stage, job.status.message, running),
            facts(job.flavor, job.docker_image or job.space_id, shorten(" ".join(job.command or []), 500)),
            facts(*(f"{what} {minute(at)}" for what, at in _times(job) if at), _named("environment", job.environment)),
            job.url,
        )
    )


def _times(job: JobInfo) -> tuple[tuple[str, Any], ...]:
    return (("created", job.created_at), ("started", job.started_at), ("finished", job.finished_at))


def _named(what: str, values: Mapping[str, Any] | None) -> str | None:
    return f"{what}: {', '.join(values)}" if values else None


def render_scheduled(job: ScheduledJobInfo) -> str:
    spec: JobSpec = job.job_spec
    following = job.status.next_job_run_at
    return facts(
        f"{job.id} at {job.schedule}",
        "suspended" if job.suspend else None,
        spec.flavor,
        spec.docker_image or spec.space_id,
        shorten(" ".join(spec.command or []), 80),
        f"next {minute(following)}" if following else None,
    )
