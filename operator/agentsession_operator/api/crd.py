"""CustomResourceDefinitions from the models: structural schemas, CEL rules, printer columns, selectable fields.

`python -m agentsession_operator.api.crd DIRECTORY` writes one file a kind; `make manifests` runs it.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from agentsession_operator.api.meta import CLASSES, GROUP, QUOTAS, SESSIONS, VERSION
from agentsession_operator.api.quota import SessionQuotaSpec, SessionQuotaStatus
from agentsession_operator.api.session import SPEC_RULES, AgentSessionSpec, AgentSessionStatus
from agentsession_operator.api.session_class import AgentSessionClassSpec
from agentsession_operator.api.size import size_rule

JSON = dict[str, Any]


def structural(model: type[BaseModel]) -> JSON:
    """The model's JSON Schema in the form that the API server requires: no references, titles or `anyOf` with null."""
    schema = model.model_json_schema(by_alias=True, mode="validation", schema_generator=GenerateJsonSchema)
    definitions = schema.pop("$defs", {})
    return _inline(schema, definitions)


def _inline(node: JSON, definitions: dict[str, JSON]) -> JSON:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        # The text beside the field says more than the text on its type.
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"a structural schema cannot express {node['anyOf']}")
        rest = {key: value for key, value in node.items() if key != "anyOf"}
        return _inline({**options[0], **rest}, definitions)
    result: JSON = {}
    for key, value in node.items():
        if key == "title" or (key == "default" and (value is None or isinstance(value, (dict, list)))):
            continue  # an unset object and an empty one mean the same to the operator
        if key == "properties":
            result[key] = {name: _inline(child, definitions) for name, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            result[key] = _inline(value, definitions)
        elif key == "description":
            result[key] = " ".join(value.split())
        else:
            result[key] = deepcopy(value)  # a type in several places would else be written with YAML's aliases
    return result


def _definition(
    kind: str,
    plural: str,
    *,
    scope: str,
    short: list[str],
    description: str,
    spec: JSON,
    status: JSON | None,
    columns: list[JSON],
    categories: list[str],
    selectable: list[str] | None = None,
    spec_required: bool = False,
    rules: list[JSON] | None = None,
) -> JSON:
    properties: JSON = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
    }
    if not spec_required:
        spec["default"] = {}
    if status is not None:
        properties["status"] = status
    schema: JSON = {"type": "object", "description": description, "properties": properties}
    if spec_required:
        schema["required"] = ["spec"]
    if rules:
        schema["x-kubernetes-validations"] = rules
    version: JSON = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [
            *columns,
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }
    if status is not None:
        version["subresources"] = {"status": {}}
    if selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": short,
                "categories": categories,
            },
            "versions": [version],
        },
    }


def _column(name: str, kind: str, path: str, *, wide: bool = False) -> JSON:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


NAME_RULE: Final[JSON] = {
    # Only new sessions: the status of one that is there must stay writable.
    "rule": "oldSelf.hasValue() || self.metadata.name.size() <= 63",
    "optionalOldSelf": True,
    "message": "metadata.name must be at most 63 characters: it becomes a label of the session's pod, for `kubectl logs -l`",
}


def _session_spec() -> JSON:
    spec = structural(AgentSessionSpec)
    return {**spec, "x-kubernetes-validations": [*SPEC_RULES, size_rule(spec, only_at_creation=True)]}


def _class_spec() -> JSON:
    spec = structural(AgentSessionClassSpec)
    return {**spec, "x-kubernetes-validations": [size_rule(spec, only_at_creation=False)]}


def agent_session() -> JSON:
    """The CustomResourceDefinition of AgentSession."""
    return _definition(
        "AgentSession",
        SESSIONS,
        scope="Namespaced",
        short=["as"],
        categories=["all", "agents"],
        description="An AI agent that works on a person's prompts in a pod of its own, admitted under the cluster's quotas.",
        spec=_session_spec(),
        status=structural(AgentSessionStatus),
        spec_required=True,
        rules=[NAME_RULE],
        selectable=[".spec.user", ".status.phase"],
        columns=[
            _column("User", "string", ".spec.user"),
            _column("Phase", "string", ".status.phase"),
            _column("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
            _column("Position", "integer", ".status.queue.position"),
            _column("Pod", "string", ".status.podName", wide=True),
            _column("Model", "string", ".status.model", wide=True),
            _column("Tokens", "integer", ".status.usage.totalTokens", wide=True),
        ],
    )


def agent_session_class() -> JSON:
    """The CustomResourceDefinition of AgentSessionClass."""
    return _definition(
        "AgentSessionClass",
        CLASSES,
        scope="Cluster",
        short=["asc"],
        categories=["agents"],
        description="What the platform team decides for sessions: image, resources, models, and defaults for the agent.",
        spec=_class_spec(),
        status=None,
        columns=[
            _column("Model", "string", ".spec.agent.model"),
            _column("Description", "string", ".spec.description", wide=True),
        ],
    )


def session_quota() -> JSON:
    """The CustomResourceDefinition of SessionQuota."""
    return _definition(
        "SessionQuota",
        QUOTAS,
        scope="Cluster",
        short=["sq"],
        categories=["agents"],
        description="How many sessions may run at once, in all and for each user, and what becomes of those that find no room.",
        spec=structural(SessionQuotaSpec),
        status=structural(SessionQuotaStatus),
        columns=[
            _column("Used", "integer", ".status.used"),
            _column("Max", "integer", ".spec.maxSessions"),
            _column("Per-User", "integer", ".spec.maxSessionsPerUser"),
            _column("Waiting", "integer", ".status.waiting"),
            _column("Oldest-Waiting", "date", ".status.oldestWaiting"),
            _column("State", "string", '.status.conditions[?(@.type=="Admitting")].reason'),
            _column("When-Full", "string", ".spec.whenFull", wide=True),
            _column("Stop", "string", ".spec.stopPolicy", wide=True),
        ],
    )


def main() -> None:
    """Write the three definitions into the directory that the first argument names."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for definition in (agent_session(), agent_session_class(), session_quota()):
        path = directory / f"{definition['spec']['names']['plural']}.yaml"
        text = yaml.safe_dump(definition, sort_keys=False, width=120, allow_unicode=True)
        path.write_text("# Generated by `make manifests` from operator/agentsession_operator/api/. Do not edit.\n" + text)


if __name__ == "__main__":
    main()
