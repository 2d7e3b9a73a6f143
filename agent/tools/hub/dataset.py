"""`hub_dataset`: the columns and rows of a dataset, from the dataset viewer API
(https://huggingface.co/docs/dataset-viewer).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent.tools.hub.client import HTTP_TIMEOUT, HubClient, HubSettings
from agent.tools.hub.errors import explain_answer, explain_network
from agent.tools.hub.text import TEXT_LIMIT, number, shorten, size
from agent.tools.tool import Tool, ToolError, parameters

if TYPE_CHECKING:
    import httpx

ROWS = 5
"""Rows that one call returns, unless the model asks for more."""

CELL_LIMIT = 500
"""Characters of a cell."""


def dataset_tool(hub: HubClient) -> Tool:
    async def call(arguments: dict[str, Any]) -> str:
        import httpx  # late: it imports slowly, and most sessions make no call to the Hub

        token = hub.settings.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(base_url=hub.settings.viewer_address, headers=headers, timeout=HTTP_TIMEOUT) as client:
            return await _inspect(_Viewer(client, hub.settings, arguments["dataset"]), arguments)

    return Tool(
        name="hub_dataset",
        description=(
            "Look into a dataset on the Hugging Face Hub without downloading it. It shows configurations and splits with "
            "their sizes, columns with their types, and rows: the first ones, some from an offset on, or those that fit a "
            "condition. Do this before you write code that uses the dataset."
        ),
        parameters=parameters(
            "dataset",
            dataset={"type": "string", "description": "owner/name"},
            config={"type": "string", "description": "The default one unless given."},
            split={"type": "string", "description": "train unless given, or the first one."},
            offset={"type": "integer", "minimum": 0, "description": "First row."},
            limit={"type": "integer", "minimum": 1, "maximum": 100, "description": f"Rows; {ROWS} unless given."},
            where={"type": "string", "description": "Condition on columns, such as age>30 AND name='Ann'."},
        ),
        call=call,
        timeout=60,
        read_only=True,
    )


class _Viewer:
    """Asks the API about one dataset."""

    def __init__(self, client: httpx.AsyncClient, settings: HubSettings, dataset: str) -> None:
        self.dataset = dataset
        self._client = client
        self._settings = settings

    async def get(self, what: str, **query: str | int) -> dict[str, Any]:
        import httpx  # late: it imports slowly, and most sessions make no call to the Hub

        has_token, page = self._settings.token is not None, f"{self._settings.endpoint}/datasets/{self.dataset}"
        try:
            response = await self._client.get(f"/{what}", params={"dataset": self.dataset, **query})
        except httpx.HTTPError as error:
            raise ToolError(explain_network(error)) from error
        if response.is_success:
            answer: dict[str, Any] = response.json()
            return answer
        raise ToolError(explain_answer(response.status_code, response.headers, _said(response), has_token=has_token, page=page))


def _said(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return shorten(response.text, 300)


async def _inspect(viewer: _Viewer, arguments: Mapping[str, Any]) -> str:
    splits = (await viewer.get("splits"))["splits"]
    config, split = choose(splits, arguments.get("config"), arguments.get("split"))
    rows = await _rows(viewer, config, split, arguments)
    try:
        info = (await viewer.get("info", config=config))["dataset_info"]
    except ToolError:  # rows without counts are worth having: a dataset that is being converted has no info yet
        info = {}
    return render(viewer.dataset, splits, config, split, info, rows, arguments)


async def _rows(viewer: _Viewer, config: str, split: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The first rows come from a cache that every dataset has; others need one that was converted to Parquet."""
    place = {"config": config, "split": split}
    part = {"offset": arguments.get("offset", 0), "length": arguments.get("limit", ROWS)}
    if "where" in arguments:
        return await viewer.get("filter", **place, where=arguments["where"], **part)
    if arguments.get("offset"):
        return await viewer.get("rows", **place, **part)
    return await viewer.get("first-rows", **place)


def choose(splits: list[dict[str, str]], config: str | None, split: str | None) -> tuple[str, str]:
    """The configuration and split that are meant, of those there are."""
    configs = list(dict.fromkeys(one["config"] for one in splits))
    chosen_config = _one_of("configuration", configs, config, "default")
    names = [one["split"] for one in splits if one["config"] == chosen_config]
    return chosen_config, _one_of("split", names, split, "train")


def _one_of(what: str, names: list[str], wanted: str | None, usual: str) -> str:
    if not names or (wanted is not None and wanted not in names):
        raise ToolError(f"There is no {what} {wanted or ''}; there are: {', '.join(names) or 'none'}.")
    if wanted is not None:
        return wanted
    return usual if usual in names else names[0]


def render(
    dataset: str,
    splits: list[dict[str, str]],
    config: str,
    split: str,
    info: Mapping[str, Any],
    rows: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> str:
    counts = {name: one["num_examples"] for name, one in (info.get("splits") or {}).items()}
    configs = list(dict.fromkeys(one["config"] for one in splits))
    names = [one["split"] for one in splits if one["config"] == config]
    counted = ", ".join(f"{name} ({number(counts.get(name), 'rows') or 'rows not counted'})" for name in names)
    total = rows.get("num_rows_total", counts.get(split))
    shown = fitting(f"  {row['row_idx']}: {_row(row)}" for row in rows["rows"][: arguments.get("limit", ROWS)])
    lines = [
        f"dataset {dataset}, configuration {config} of: {shorten(', '.join(configs), 400)}",
        f"splits: {counted}; {size(info.get('dataset_size')) or 'size not known'} in memory",
        "columns:",
        *(f"  {column['name']}: {type_name(column['type'])}" for column in rows["features"]),
        f"rows of {split}{', where ' + arguments['where'] if 'where' in arguments else ''}:",
        *shown,
    ]
    following = arguments.get("offset", 0) + len(shown)
    if shown and (total is None or following < total):
        lines.append(f"[more rows with offset {following}{f' of {total}' if total else ''}]")
    if rows.get("partial"):
        lines.append("[only the beginning of this dataset can be looked at here, because of its size]")
    return "\n".join(lines)


def fitting(lines: Iterable[str]) -> list[str]:
    """The first lines, as many as one call returns; at least one."""
    taken: list[str] = []
    length = 0
    for line in lines:
        length += len(line)
        if taken and length > TEXT_LIMIT:
            break
        taken.append(line)
    return taken


def type_name(feature: Any) -> str:
    """A column's type, for a reader (https://huggingface.co/docs/datasets/about_dataset_features)."""
    if isinstance(feature, list):
        return f"list of {type_name(feature[0])}"
    kind = feature.get("_type")
    if not isinstance(kind, str):  # a structure, which may have a member of that name
        return "{" + ", ".join(f"{name}: {type_name(inner)}" for name, inner in feature.items()) + "}"
    if kind in ("List", "LargeList", "Sequence"):
        return f"list of {type_name(feature['feature'])}"
    if kind == "ClassLabel":
        names = feature.get("names") or []
        return f"label, {len(names)} classes: {shorten(', '.join(map(str, names)), 300)}"
    return str(feature["dtype"]) if kind == "Value" else kind


def _row(row: Mapping[str, Any]) -> str:
    cells = {name: _cell(value) for name, value in row["row"].items()}
    cut = f" [cut by the viewer: {', '.join(row['truncated_cells'])}]" if row["truncated_cells"] else ""
    return json.dumps(cells, ensure_ascii=False) + cut


def _cell(value: Any) -> Any:
    """A value, cut; media without their addresses, which are signed and lead to nothing that a model can read."""
    if isinstance(value, dict) and "src" in value:
        return f"[media {value['width']}x{value['height']}]" if "width" in value else "[media]"
    if isinstance(value, list) and value and isinstance(value[0], dict) and "src" in value[0]:
        return f"[media, {', '.join(str(one.get('type')) for one in value)}]"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= CELL_LIMIT else f"{text[:CELL_LIMIT]}… (+{len(text) - CELL_LIMIT} characters)"
