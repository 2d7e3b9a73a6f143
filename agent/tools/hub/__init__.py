"""Tools for the Hugging Face Hub, through huggingface_hub, which is imported when one of them is first called."""

from __future__ import annotations

from agent.tools.hub.client import HubClient, HubSettings
from agent.tools.hub.dataset import dataset_tool
from agent.tools.hub.files import files_tool
from agent.tools.hub.jobs import jobs_tool
from agent.tools.hub.prices import JobPrices
from agent.tools.hub.read import read_tool
from agent.tools.hub.repo import repo_tool
from agent.tools.hub.run_jobs import job_tool
from agent.tools.hub.search import search_tool
from agent.tools.tool import Tool
from agent.workspace import Workspace

__all__ = ["HubSettings", "hub_tools"]


def hub_tools(settings: HubSettings, workspace: Workspace) -> tuple[Tool, ...]:
    """`hub_search`, `hub_read`, `hub_dataset`, `hub_jobs`, which only read; `hub_files`, `hub_repo`, `hub_job`."""
    hub, prices = HubClient(settings), JobPrices()
    return (
        search_tool(hub),
        read_tool(hub),
        dataset_tool(hub),
        jobs_tool(hub, prices),
        files_tool(hub, workspace),
        repo_tool(hub),
        job_tool(hub, prices),
    )
