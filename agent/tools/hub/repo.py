"""`hub_repo`: creates repositories, and changes branches, tags, pull requests and discussions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.tools.hub.client import HubClient
from agent.tools.hub.text import inside
from agent.tools.tool import Tool, ToolError, parameters

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NEEDED = {
    "create_repository": (),
    "create_branch": ("name",),
    "delete_branch": ("name",),
    "create_tag": ("name",),
    "delete_tag": ("name",),
    "open_discussion": ("title",),
    "open_pull_request": ("title",),
    "comment": ("number", "text"),
    "merge": ("number",),
    "close": ("number",),
    "reopen": ("number",),
}
"""The actions, and the arguments that each cannot do without."""

HARMLESS = ("create_branch", "create_tag")
"""Actions that take nothing away and say nothing to other people."""


def repo_tool(hub: HubClient) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        hub.require_token()
        missing = [name for name in NEEDED[arguments["action"]] if name not in arguments]
        if missing:
            raise ToolError(f"{arguments['action']} needs {' and '.join(missing)}.")
        page = hub.page(arguments["repo"], arguments.get("type", "model"))
        return await hub.call(lambda api: _change(api, arguments), page=page)

    return Tool(
        name="hub_repo",
        description=(
            "Change what is around the files of a repository on the Hugging Face Hub. Create the repository itself; create "
            "or delete branches and tags; open, comment on, merge, close or reopen (also: take out of draft) pull requests "
            "and discussions. hub_read shows what there is."
        ),
        parameters=parameters(
            "action",
            "repo",
            action={"enum": list(NEEDED)},
            repo={"type": "string", "description": "owner/name"},
            type={"enum": ["model", "dataset", "space"], "description": "model unless given."},
            name={"type": "string", "description": "Of the branch or tag."},
            revision={"type": "string", "description": "Where a new branch or tag is to be; main unless given."},
            number={"type": "integer", "minimum": 1, "description": "Of the pull request or discussion."},
            title={"type": "string", "minLength": 3, "maxLength": 200},
            text={"type": "string", "description": "Description, comment, or a tag's message."},
            private={"type": "boolean", "description": "For a new repository; true unless given."},
            sdk={"enum": ["gradio", "docker", "static"], "description": "For a new Space; gradio unless given."},
        ),
        call=call,
        timeout=120,
        needs_consent=consent,
    )


def consent(arguments: Mapping[str, Any]) -> str | None:
    """What destroys, and what other people get to see."""
    action, where = arguments["action"], f"{arguments.get('type', 'model')} {arguments['repo']} on the Hugging Face Hub"
    if action in HARMLESS:
        return None
    if action == "create_repository":
        return None if arguments.get("private", True) else f"it would create the {where}, for everybody to see"
    if action in ("delete_branch", "delete_tag"):
        return f"it would delete the {action.removeprefix('delete_')} {arguments.get('name')} of the {where}"
    if action in ("merge", "close", "reopen"):
        return f"it would {action} #{arguments.get('number')} of the {where}"
    return f"it would publish a {'comment' if action == 'comment' else 'post'} in your name at the {where}"


def _change(api: HfApi, arguments: Mapping[str, Any]) -> str:
    action, repo, kind = arguments["action"], arguments["repo"], arguments.get("type", "model")
    match action:
        case "create_repository":
            return _create(api, repo, kind, arguments)
        case "create_branch" | "delete_branch" | "create_tag" | "delete_tag":
            return _change_ref(api, action, repo, kind, arguments)
        case "open_discussion" | "open_pull_request":
            opened = api.create_discussion(
                repo,
                arguments["title"],
                description=arguments.get("text"),
                repo_type=kind,
                pull_request=action == "open_pull_request",
            )
            how = "; upload to its revision, then reopen it to end its draft state" if opened.is_pull_request else ""
            return f"#{opened.num} is {opened.status} at {opened.url} (revision {opened.git_reference}){how}"
        case _:
            return _change_discussion(api, action, repo, kind, arguments)


def _create(api: HfApi, repo: str, kind: str, arguments: Mapping[str, Any]) -> str:
    private = arguments.get("private", True)
    sdk = arguments.get("sdk", "gradio") if kind == "space" else None
    url = api.create_repo(repo, repo_type=kind, private=private, space_sdk=sdk)
    return f"created the {'private' if private else 'public'} {kind} {url.repo_id}: {url}"


def _change_ref(api: HfApi, action: str, repo: str, kind: str, arguments: Mapping[str, Any]) -> str:
    name, revision = inside("name", arguments["name"]), arguments.get("revision")
    if revision is not None:
        inside("revision", revision)
    match action:
        case "create_branch":
            api.create_branch(repo, branch=name, revision=revision, repo_type=kind)
        case "delete_branch":
            api.delete_branch(repo, branch=name, repo_type=kind)
        case "create_tag":
            api.create_tag(repo, tag=name, tag_message=arguments.get("text"), revision=revision, repo_type=kind)
        case "delete_tag":
            api.delete_tag(repo, tag=name, repo_type=kind)
    return f"{action} {name} in {repo}: done"


def _change_discussion(api: HfApi, action: str, repo: str, kind: str, arguments: Mapping[str, Any]) -> str:
    number, text = arguments["number"], arguments.get("text")
    match action:
        case "comment":
            api.comment_discussion(repo, number, arguments["text"], repo_type=kind)
        case "merge":
            api.merge_pull_request(repo, number, comment=text, repo_type=kind)
        case "close":
            api.change_discussion_status(repo, number, "closed", comment=text, repo_type=kind)
        case "reopen":
            api.change_discussion_status(repo, number, "open", comment=text, repo_type=kind)
    return f"{action} #{number} of {repo}: done"
