"""Which conditions are worth an Event, and how it looks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from agentsession_operator.api.meta import Condition
from agentsession_operator.api.session import AgentSessionStatus
from agentsession_operator.manifests.event import event, new_trouble
from support.control_plane.builders import STAMP, condition, session
from support.control_plane.strategies import session_names

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def status(*conditions: dict[str, object]) -> AgentSessionStatus:
    return AgentSessionStatus.model_validate({"conditions": list(conditions)})


def trouble(before: AgentSessionStatus, after: AgentSessionStatus) -> list[tuple[str, str]]:
    return [(item.type, item.reason) for item in new_trouble(before, after)]


@pytest.mark.parametrize(
    ("kind", "state", "reason"),
    [
        ("Admitted", "False", "Misconfigured"),
        ("PodReady", "False", "CreateFailed"),
        ("PodReady", "False", "Unschedulable"),
        ("PodReady", "False", "ImageError"),
        ("PodReady", "False", "ContainerError"),
        ("PodReady", "False", "Crashed"),
        ("PodReady", "False", "Evicted"),
        ("PodReady", "False", "PodGone"),
        ("Finished", "True", "Failed"),
        ("Finished", "True", "BudgetExceeded"),
    ],
)
def test_trouble_is_told_when_it_begins_and_not_again(kind: str, state: str, reason: str) -> None:
    after = status(condition(kind, state, reason))
    assert trouble(status(), after) == [(kind, reason)]
    assert trouble(after, status(condition(kind, state, reason, "another message"))) == []


@pytest.mark.parametrize(
    ("kind", "state", "reason"),
    [
        ("Admitted", "True", "Admitted"),
        ("Admitted", "False", "UserLimitReached"),
        ("Admitted", "False", "Released"),
        ("PodReady", "True", "PodReady"),
        ("PodReady", "False", "Creating"),
        ("PodReady", "False", "PodEnded"),
        ("Active", "True", "Idle"),
        ("Finished", "True", "Completed"),
        ("Ready", "False", "Crashed"),
    ],
)
def test_the_usual_is_no_event(kind: str, state: str, reason: str) -> None:
    assert trouble(status(), status(condition(kind, state, reason))) == []


def test_trouble_that_comes_back_is_told_again() -> None:
    crashed, fine = status(condition("PodReady", "False", "Crashed")), status(condition("PodReady", "True", "PodReady"))
    assert trouble(fine, crashed) == [("PodReady", "Crashed")]


def crash(message: str = "agent: exit code 1 (Error), 2 restarts.") -> Condition:
    return Condition.model_validate(condition("PodReady", "False", "Crashed", message))


def test_an_event_is_about_the_session_and_says_what_the_condition_says() -> None:
    made = event(session(), crash(), STAMP)
    assert made["involvedObject"] == {
        "apiVersion": "agentsession.dev/v1alpha1",
        "kind": "AgentSession",
        "namespace": "team",
        "name": "demo",
        "uid": "uid-of-demo",
    }
    assert (made["type"], made["reason"], made["message"]) == ("Warning", "Crashed", "agent: exit code 1 (Error), 2 restarts.")
    assert made["metadata"]["namespace"] == "team"


def test_the_same_news_make_the_same_event_and_other_news_another() -> None:
    def name(**other: str) -> str:
        made = event(session(), crash(), other.get("now", STAMP))
        return str(made["metadata"]["name"])

    assert name() == name()
    assert name() != name(now="2026-05-04T12:00:01Z")


@given(session_names)
def test_an_events_name_is_one_that_the_api_server_takes(name: str) -> None:
    made = event(session(name), crash("x" * 5000), STAMP)
    assert SUBDOMAIN.fullmatch(made["metadata"]["name"])
    assert len(made["metadata"]["name"]) <= 253
    assert len(made["message"]) <= 1024


@pytest.mark.parametrize("last", ["-", "."])
def test_a_long_name_is_not_cut_after_a_dash_or_a_dot(last: str) -> None:
    made = event(session("a" * 199 + last + "b" * 20), crash(), STAMP)
    assert SUBDOMAIN.fullmatch(made["metadata"]["name"])
