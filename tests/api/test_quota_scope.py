"""Which sessions a quota counts, whose share they are, and how many may wait: on a real API server, with a real operator."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from agentsession_operator.api.quota import DEFAULT_MAX_SESSIONS_PER_USER
from support.api import GROUP, JSON, Api, Refused, condition
from support.cluster import kind
from support.scene import Scene
from support.waiting import eventually, read, throughout, wait_for

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sessionquotas.agentsession.dev"
RESEARCH = {"matchLabels": {"team": "research"}}


def used(scene: Scene, number: int) -> None:
    """Wait until the quota's status says so."""

    def look() -> bool:
        assert scene.quota_status().get("used") == number, scene.quota_status()
        return True

    eventually(look, within=30, what=f"{number} in use")


def test_namespaces_are_counted_by_their_labels_and_a_relabeling_counts_at_once(scene: Scene) -> None:
    scene.label(scene.namespace, team="research")
    scene.quota(namespaceSelector=RESEARCH, maxSessions=1, maxSessionsPerUser=1)
    other = scene.other_namespace(team="sales")
    assert scene.asks("first") == ["Admitted"]
    second = scene.ask("second", "bob")
    assert scene.told(second) == "GlobalLimitReached"
    assert "the only slot is in use (SessionQuota tested)" in scene.message(second)
    assert scene.asks("third", "fourth", namespace=other) == ["Admitted", "Admitted"], "it neither counts nor waits there"

    scene.label(other, team="research")
    used(scene, 3)
    scene.label(scene.namespace, team=None)
    scene.becomes(second, "Admitted")
    used(scene, 2)


def test_expressions_select_namespaces_as_everywhere_in_kubernetes(scene: Scene) -> None:
    scene.label(scene.namespace, stage="test")
    demands = [{"key": "stage", "operator": "NotIn", "values": ["production"]}, {"key": "team", "operator": "DoesNotExist"}]
    scene.quota(namespaceSelector={"matchExpressions": demands}, maxSessions=0)
    production, owned = scene.other_namespace(stage="production"), scene.other_namespace(team="sales", suffix="owned")
    assert scene.asks("here") == ["GlobalLimitReached"]
    assert scene.asks("there", namespace=production) == ["Admitted"]
    assert scene.asks("owned", namespace=owned) == ["Admitted"]


def test_classes_are_counted_by_name_the_default_one_too(scene: Scene) -> None:
    small, large = scene.session_class("small"), scene.session_class("large")
    scene.quota("named", classNames=[large], maxSessions=1, maxSessionsPerUser=1)
    scene.quota("default-class", classNames=["default"], maxSessions=0)
    assert scene.asks("l1", className=large) == ["Admitted"]
    assert scene.asks("l2", className=large, user="bob") == ["GlobalLimitReached"]
    assert scene.asks("s1", "s2", className=small) == ["Admitted", "Admitted"]
    unnamed = scene.ask("unnamed")
    assert scene.told(unnamed) == "GlobalLimitReached"
    assert "SessionQuota default-class" in scene.message(unnamed)


def test_a_session_needs_room_in_every_quota_and_is_told_which_binds(scene: Scene) -> None:
    scene.label(scene.namespace, team="research")
    scene.quota("all", maxSessions=5, maxSessionsPerUser=2)
    scene.quota("team", namespaceSelector=RESEARCH, maxSessions=3, maxSessionsPerUser=3)
    assert scene.asks("a1", "a2") == ["Admitted", "Admitted"]
    a3, b1, c1 = scene.ask("a3"), scene.ask("b1", "bob"), scene.ask("c1", "carol")
    assert [scene.told(body) for body in (a3, b1, c1)] == ["UserLimitReached", "Admitted", "GlobalLimitReached"]
    assert "the user has reached the maximum of 2 concurrent sessions (SessionQuota all)" in scene.message(a3)
    assert "all 3 slots are in use (SessionQuota team)" in scene.message(c1)
    assert scene.asks("c2", user="carol", namespace=scene.other_namespace()) == ["Admitted"]


def test_without_a_quota_the_built_in_limits_hold_and_are_named(scene: Scene) -> None:
    most = DEFAULT_MAX_SESSIONS_PER_USER
    *first, last = (scene.ask(f"a{number}") for number in range(most + 1))
    assert [scene.told(body) for body in first] == ["Admitted"] * most
    assert scene.told(last) == "UserLimitReached"
    assert f"the maximum of {most} concurrent sessions (the built-in limit" in scene.message(last)
    scene.quota(maxSessions=most + 1, maxSessionsPerUser=most + 1)
    scene.becomes(last, "Admitted")


def test_a_lowered_limit_stops_nobody_and_admits_nobody_above_it(scene: Scene) -> None:
    quota = scene.quota(maxSessions=3, maxSessionsPerUser=3)
    bodies = [scene.ask(f"a{number}") for number in range(3)]
    quota.write(maxSessions=1, maxSessionsPerUser=1)
    quota.enforced()
    used(scene, 3)
    waits = scene.ask("b1", "bob")
    for body in bodies[:2]:
        scene.finishes(body)
        wait_for(scene.api, body, "Admitted", "False", "Released")
        assert scene.told(waits) == "GlobalLimitReached"
    assert scene.told(bodies[2]) == "Admitted"
    scene.finishes(bodies[2])
    scene.becomes(waits, "Admitted")


def test_rules_count_each_user_or_all_together_or_exempt_them(scene: Scene) -> None:
    rules = [
        {"match": "bot-*", "countAs": "Together", "maxSessions": 2},
        {"match": "*@guest.example", "maxSessions": 1},
        {"match": "root@*", "exempt": True},
        {"match": "*", "maxSessions": 3},
    ]
    scene.quota(maxSessions=11, maxSessionsPerUser=0, userRules=rules)
    assert scene.asks("b1", user="bot-1") == ["Admitted"]
    assert scene.asks("b2", user="bot-2") == ["Admitted"]
    bot = scene.ask("b3", "bot-3")
    assert scene.told(bot) == "UserLimitReached"
    assert "the users bot-* together have reached the maximum of 2 concurrent sessions" in scene.message(bot)
    for guest in ("x", "y"):
        assert scene.asks(f"{guest}1", f"{guest}2", user=f"{guest}@guest.example") == ["Admitted", "UserLimitReached"]
    assert scene.asks("a1", "a2", "a3", "a4") == ["Admitted", "Admitted", "Admitted", "UserLimitReached"]
    assert scene.asks("r1", "r2", "r3", "r4", user="root@host") == ["Admitted"] * 4
    assert scene.asks("r5", user="root@host") == ["GlobalLimitReached"], "maxSessions holds for the exempt, too"


def test_a_user_with_more_weight_is_next_although_they_hold_more(scene: Scene) -> None:
    scene.quota(maxSessions=4, maxSessionsPerUser=4, userRules=[{"match": "heavy", "weight": 3}])
    filler = scene.ask("filler", "other")
    assert scene.asks("h1", "h2", user="heavy") == ["Admitted", "Admitted"]
    assert scene.asks("l1", user="light") == ["Admitted"]
    light, heavy = scene.ask("l2", "light"), scene.ask("h3", "heavy")
    assert [scene.told(light), scene.told(heavy)] == ["GlobalLimitReached"] * 2
    scene.finishes(filler)
    scene.becomes(heavy, "Admitted")
    assert scene.told(light) == "GlobalLimitReached"


def test_a_full_queue_ends_what_comes_then_and_that_once(scene: Scene) -> None:
    spec: JSON = {"maxSessions": 1, "maxSessionsPerUser": 1, "maxWaitingPerUser": 1}
    quota = scene.quota(**spec, maxWaiting=2)
    assert scene.asks("a1", "a2") == ["Admitted", "UserLimitReached"]
    a3 = scene.ask("a3")
    assert scene.asks("b1", user="bob") == ["GlobalLimitReached"]
    c1 = scene.ask("c1", "carol")
    for body, words in ((a3, "1 session of this user waits already"), (c1, "2 sessions wait already")):
        found = scene.becomes(body, "QueueFull")
        assert "The queue is full" in scene.message(body)
        assert words in scene.message(body)
        assert condition(found, "Finished")["reason"] == "Rejected"
        assert not scene.pods(body)
    quota.write(**spec, maxWaiting=100)
    quota.enforced()
    assert scene.asks("d1", user="dave") == ["GlobalLimitReached"]
    assert [scene.told(a3), scene.told(c1)] == ["QueueFull", "QueueFull"], "it is decided once"


@contextmanager
def loose_schema(api: Api) -> Iterator[None]:
    """Quotas are stored although they are wrong, as a release with another schema would have stored them."""
    versions = api.get(CRD)["spec"]["versions"]
    loose = copy.deepcopy(versions)
    loose[0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    api.patch(CRD, {"spec": {"versions": loose}})
    try:
        yield
    finally:
        api.patch(CRD, {"spec": {"versions": versions}})


def store(scene: Scene, name: str, spec: JSON) -> None:
    """Store a quota that the schema would refuse."""
    path = f"{GROUP}/sessionquotas"
    body = {"apiVersion": "agentsession.dev/v1alpha1", "kind": "SessionQuota", "metadata": {"name": name}, "spec": spec}
    with loose_schema(scene.api):

        def stored() -> bool:
            try:
                scene.api.create(path, body)
            except Refused as refused:
                assert refused.code == 409, refused
            return bool(scene.api.get(f"{path}/{name}")["spec"] == spec)

        eventually(stored, what=f"the quota {name}")


def test_an_unreadable_quota_stops_those_that_it_may_count_and_says_so(scene: Scene) -> None:
    scene.label(scene.namespace, team="research")
    other = scene.other_namespace()
    quota = scene.quota(namespaceSelector=RESEARCH, maxSessions=5)
    running = scene.ask("running")
    scene.starts(running)
    quota.remove()
    store(scene, quota.name, {"namespaceSelector": RESEARCH, "maxSessions": "many"})
    broken = quota.enforced()
    assert condition(broken, "Ready")["reason"] == "Unreadable"
    assert condition(broken, "Admitting")["status"] == "False"
    assert "limit" not in broken["status"]
    held = scene.ask("held", "bob")
    assert scene.told(held) == "QuotaHeld"
    assert "SessionQuota tested cannot be read" in scene.message(held)
    assert "until it is fixed or deleted" in scene.message(held)
    assert scene.asks("elsewhere", namespace=other) == ["Admitted"]
    assert condition(read(scene.api, running), "Ready")["status"] == "True", "what runs continues"

    scene.api.patch(quota.path, {"spec": {"maxSessions": 3}})
    scene.becomes(held, "Admitted")
    assert condition(quota.enforced(), "Ready")["status"] == "True"


def test_a_quota_whose_selector_cannot_be_read_stops_everybody(scene: Scene) -> None:
    quota = scene.quota(namespaceSelector=RESEARCH)
    quota.remove()
    store(scene, quota.name, {"namespaceSelector": {"matchLabels": ["team"]}})
    quota.enforced()
    held = scene.ask("held")
    assert scene.told(held) == "QuotaHeld"

    def waits() -> None:
        assert not scene.pods(held)

    throughout(waits, seconds=1.0)
    quota.remove()
    scene.becomes(held, "Admitted")


def test_kubectl_get_sq_says_whether_it_is_full_and_who_waits(scene: Scene) -> None:
    quota = scene.quota(maxSessions=1, maxSessionsPerUser=1, whenFull="Queue", stopPolicy="None")

    def table(*options: str) -> list[tuple[str, str]]:
        command = [kind("bin", "kubectl"), "--kubeconfig", str(scene.api.kubeconfig), "get", "sq", quota.name, *options]
        lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
        starts = [lines[0].index(title) for title in lines[0].split()]
        cells = [lines[1][start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        return list(zip(lines[0].split(), cells, strict=True))

    def row(*options: str) -> dict[str, str]:
        return dict(table(*options))

    columns = ["NAME", "USED", "MAX", "PER-USER", "WAITING", "OLDEST-WAITING", "STATE", "AGE"]
    assert [title for title, _ in table()] == columns
    assert [title for title, _ in table("-o", "wide")] == [*columns[:-1], "WHEN-FULL", "STOP", "AGE"]
    wanted = {"NAME": quota.name, "USED": "0", "MAX": "1", "PER-USER": "1", "WAITING": "0", "OLDEST-WAITING": ""}
    assert wanted.items() <= row().items()
    assert {"STATE": "HasRoom", "WHEN-FULL": "Queue", "STOP": "None"}.items() <= row("-o", "wide").items()
    assert scene.asks("a1", user="alice") == ["Admitted"]
    assert scene.asks("b1", user="bob") == ["GlobalLimitReached"]

    def full() -> bool:
        shown = row()
        assert {"USED": "1", "WAITING": "1", "STATE": "Full"}.items() <= shown.items(), shown
        return shown["OLDEST-WAITING"] != ""

    eventually(full, within=30, what="a full quota with one session that waits")
    quota.write(stopPolicy="Hold")
    eventually(lambda: row()["STATE"] == "Hold", within=30, what="the hold in the table")
