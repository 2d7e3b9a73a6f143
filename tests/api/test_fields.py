"""Every field of SessionQuota and AgentSessionClass: each value is refused with a message that names the field, or converges.

The values are made from the committed schemas (support/fields.py). All of them are put to the API server. Of those that it
accepts, a seeded sample is set on objects that say something else, beside twins that say it from the start: what becomes of
sessions must be the same, must stay the same when the operator starts again, and must cost no write at rest.

The sample has one value of each field of a spec; AGENTSESSION_FIELDS is how many more, AGENTSESSION_FIELDS_SEED which.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from agentsession_operator.api.quota import SessionQuotaSpec
from agentsession_operator.api.session_class import AgentSessionClassSpec
from support.api import GROUP, JSON, Api, Refused, condition
from support.fields import Case, cases, schema_of
from support.quota import Quota
from support.scene import Scene
from support.waiting import eventually, read, throughout

MORE = int(os.environ.get("AGENTSESSION_FIELDS", "2"))
SEED = int(os.environ.get("AGENTSESSION_FIELDS_SEED", "14"))
REST_SECONDS = 35.0
"""Longer than the operator's longest interval of writing: positions in the queue, every 30 s."""
KINDS: dict[str, tuple[str, type[BaseModel]]] = {
    "SessionQuota": ("sessionquotas", SessionQuotaSpec),
    "AgentSessionClass": ("agentsessionclasses", AgentSessionClassSpec),
}

Stored = dict[str, list[tuple[Case, Any]]]


def body_of(kind: str, name: str, spec: Any) -> JSON:
    return {"apiVersion": "agentsession.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def accepted(api: Api, kind: str) -> Iterator[tuple[Case, Any]]:
    """The cases that the API server accepts, and the spec as it would store it. The others are refused by the field's name."""
    plural, _ = KINDS[kind]
    for case in cases(schema_of(f"{plural}.yaml")):
        try:
            body = body_of(kind, "dry", case.spec)
            stored = api.call("POST", f"{GROUP}/{plural}", body, dryRun="All", fieldValidation="Strict")
        except Refused as refused:
            assert refused.code in (400, 422), f"{case}: {refused}"
            # A rule about several fields names one of them.
            named = case.path if not case.fits else case.path.rpartition(".")[0]
            assert named in refused.message, f"{case}: {refused}"
            continue
        assert case.fits, f"{case} was accepted"
        yield case, stored["spec"]


@pytest.fixture(scope="module")
def stored(api: Api) -> Stored:
    """What the API server accepts, by kind."""
    return {kind: list(accepted(api, kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_each_value_is_refused_by_name_or_read_by_the_operator(stored: Stored, kind: str) -> None:
    """Nothing that the API server accepts is unreadable."""
    plural, model = KINDS[kind]
    assert len(stored[kind]) > 50
    for case, spec in stored[kind]:
        assert model.model_validate(spec), str(case)
    missing = {case.path for case in cases(schema_of(f"{plural}.yaml")) if case.fits} - {case.path for case, _ in stored[kind]}
    assert not missing, "no value of theirs is accepted"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"userRules": [{"match": "a", "exempt": True, "maxSessions": 1}]}, "spec.userRules[0].maxSessions"),
        ({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "matchExpressions[0].values"),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
            "matchExpressions[0].values",
        ),
    ],
)
def test_values_that_contradict_one_another_are_refused_by_name(api: Api, spec: JSON, named: str) -> None:
    with pytest.raises(Refused) as refused:
        api.call("POST", f"{GROUP}/sessionquotas", body_of("SessionQuota", "dry", spec), dryRun="All")
    assert refused.value.code == 422
    assert named in refused.value.message


@dataclass
class Twin:
    """One of two that must come to the same: their quota or class, and the sessions under it."""

    case: Case
    name: str
    sessions: list[JSON] = field(default_factory=list)


def sample(found: list[tuple[Case, Any]], prefix: str) -> list[tuple[Twin, Twin]]:
    """Of the accepted values some of each field, each as the one that is edited and the one that is new."""
    dice = random.Random(SEED)
    by_field: dict[str, list[Case]] = {}
    for case, _ in found:
        by_field.setdefault(re.split(r"[.\[]", f"{case.path}.")[1], []).append(case)
    chosen = [dice.choice(each) for each in by_field.values()] + dice.sample([case for case, _ in found], MORE)
    return [(Twin(case, f"{prefix}{number}-edit"), Twin(case, f"{prefix}{number}-new0")) for number, case in enumerate(chosen)]


def ask(scene: Scene, twins: list[Twin], number: int, user: str) -> None:
    """One more session under each; all are decided on before the next."""
    for twin in twins:
        name, owner = f"{twin.name}-{number}", f"{user}-{twin.name}"
        spec = {
            "user": owner,
            "mode": "Task",
            "prompt": "Say hello.",
            "agent": {"model": "openai/none"},
            "className": twin.name,
        }
        path = f"{GROUP}/namespaces/{scene.namespace}/agentsessions"
        twin.sessions.append(scene.api.create(path, body_of("AgentSession", name, spec)))
    for twin in twins:
        eventually(partial(scene.told, twin.sessions[-1]), within=60, what=f"a word on {twin.name}-{number} ({twin.case})")


def outcome(scene: Scene, twin: Twin, *, quota: bool) -> Any:
    """What became of its sessions (conditions, pods), and the quota's own word, without names and times. Positions are told
    every 30 s only."""
    known = [twin.name, *(body["metadata"]["uid"] for body in twin.sessions)]
    seen: list[Any] = []
    for body in twin.sessions:
        status = read(scene.api, body).get("status", {})
        conditions = [words(item) for item in status.get("conditions", [])]
        pods = [pod["spec"] | {"nodeName": None} for pod in scene.pods(body)]
        seen.append([sorted(conditions), status.get("phase"), pods])
        known += [pod["metadata"]["name"] for pod in scene.pods(body)]
    if quota:
        status = Quota(scene.api, twin.name).read().get("status", {})
        told = sorted(words(item) for item in status.get("conditions", []))
        seen.append([status.get("used"), status.get("waiting"), status.get("limit"), told])
    text = json.dumps(seen, sort_keys=True)
    for name in sorted(known, key=len, reverse=True):
        text = text.replace(name, "NAME")
    return json.loads(re.sub(r" at position \d+|[0-9a-f]{64}|NAME-\d-[0-9a-f]{10}|kube-api-access-\w+", "X", text))


def words(item: JSON) -> tuple[str, str, str, str]:
    """A condition. What the scheduler says of the node without a kubelet depends on how long it has been without, and the API
    server says what is wrong with a map's keys in any order."""
    if item["reason"] in ("Unschedulable", "Creating"):
        return item["type"], item["status"], "Creating", ""
    if item["message"].startswith("The API server refused"):
        return item["type"], item["status"], item["reason"], item["message"].partition(":")[0]
    return item["type"], item["status"], item["reason"], item["message"]


def settled(scene: Scene, pairs: list[tuple[Twin, Twin]], *, quota: bool) -> dict[str, Any]:
    """What became of each value; the same for both twins."""
    result: dict[str, Any] = {}

    def alike() -> bool:
        for edited, new in pairs:
            one, other = outcome(scene, edited, quota=quota), outcome(scene, new, quota=quota)
            assert one == other, f"{edited.case}: edited {one}, new {other}"
            assert all(conditions for conditions, *_ in other[: len(new.sessions)]), f"{new.case}: no word yet"
            result[str(new.case)] = other
        return True

    eventually(alike, within=60, what="the same outcome")
    return result


def writes_nothing(scene: Scene, seconds: float) -> bool:
    """Fails at a write; true where there was none."""
    quiet = scene.operator.writes()

    def unchanged() -> None:
        assert scene.operator.is_alive
        now = scene.operator.writes()
        assert now == quiet, {key: now[key] - quiet.get(key, 0) for key in now if now[key] != quiet.get(key, 0)}

    throughout(unchanged, seconds=seconds)
    return True


def edit_quotas(scene: Scene, pairs: list[tuple[Twin, Twin]]) -> None:
    """Three sessions under each; nobody else's session is counted there."""
    twins = both(pairs)
    for twin in twins:
        scene.session_class(twin.name)
    for edited, _ in pairs:
        scene.put_quota(edited.name, classNames=[edited.name], maxSessions=0, stopPolicy="Hold", userRules=[{"match": "bob*"}])
    scene.all_enforced()
    for twin in twins:
        scene.put_quota(twin.name, **{"classNames": [twin.name], **twin.case.spec})
    scene.all_enforced()
    for number, user in enumerate(("alice", "alice", "bob")):
        ask(scene, twins, number, user)


def edit_classes(scene: Scene, pairs: list[tuple[Twin, Twin]]) -> None:
    """The class of one twin allows no model at first: its session waits, misconfigured, until the edit."""
    path = f"{GROUP}/agentsessionclasses"
    for edited, _ in pairs:
        scene.apply(body_of("AgentSessionClass", edited.name, {"models": [{"match": "no/such"}]}), f"{path}/{edited.name}")
    ask(scene, [edited for edited, _ in pairs], 0, "alice")
    for twin in both(pairs):
        scene.apply(body_of("AgentSessionClass", twin.name, twin.case.spec), f"{path}/{twin.name}")
    ask(scene, [new for _, new in pairs], 0, "alice")


def both(pairs: list[tuple[Twin, Twin]]) -> list[Twin]:
    return [twin for pair in pairs for twin in pair]


def test_accepted_values_converge_and_cost_nothing_at_rest(scene: Scene, stored: Stored) -> None:
    # Counts everybody, so that the built-in limits hold for nobody.
    scene.quota("everybody", maxSessions=1_000_000, maxSessionsPerUser=1_000_000)
    quotas, classes = sample(stored["SessionQuota"], "q"), sample(stored["AgentSessionClass"], "c")
    edit_quotas(scene, quotas)
    edit_classes(scene, classes)

    def outcomes() -> dict[str, Any]:
        """By the value. Fields of both kinds have different names."""
        return settled(scene, quotas, quota=True) | settled(scene, classes, quota=False)

    # The status of quotas follows within 5 s.
    eventually(partial(writes_nothing, scene, 6.0), within=60, what="rest")
    before = outcomes()
    assert len({json.dumps(each) for each in before.values()}) > 5, "the values make a difference"
    scene.operator.stop()
    scene.operator.start()

    def the_same() -> bool:
        for value, after in outcomes().items():
            assert after == before[value], f"{value}: before {before[value]}, after a restart {after}"
        return True

    eventually(the_same, within=30, what="the same after a restart")
    for twin in both(classes):
        # A pod that the cluster refuses is tried again, less and less often, and the scheduler changes its words.
        if condition(read(scene.api, twin.sessions[0]), "PodReady").get("reason") in ("CreateFailed", "Unschedulable"):
            scene.api.delete(f"{GROUP}/namespaces/{scene.namespace}/agentsessions/{twin.sessions[0]['metadata']['name']}")
    eventually(partial(writes_nothing, scene, 6.0), within=30, what="rest")
    writes_nothing(scene, REST_SECONDS)
