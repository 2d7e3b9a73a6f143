"""What the kubelet writes, and what a person reads in the PodReady condition."""

from __future__ import annotations

from typing import Any

import pytest

from agentsession_operator.api.objects import Pod
from agentsession_operator.api.times import parse_time
from agentsession_operator.decisions.podstate import (
    agent_ended_at,
    final_report,
    loss,
    never_ran,
    readiness,
    started_at,
    unschedulable_since,
)
from support.control_plane.builders import (
    CREATED,
    EARLIER,
    JSON,
    READY,
    STAMP,
    STARTING,
    container,
    ended,
    pod,
    pod_body,
    pod_status,
    report,
    running,
    terminated,
    waiting,
)

EPOCH = "1970-01-01T00:00:00Z"
"""What the kubelet gives as the start of a container that could not be started."""
WORKSPACE = container("workspace", running(), ready=True)
DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}
DRAINED = {**READY, "conditions": [*READY["conditions"], DISRUPTED]}
FINAL = report(outcome="Completed", sequence=7).model_dump_json()


def seen(status: JSON, **fields: Any) -> tuple[str, str, str]:
    ready = readiness(pod(status=status, **fields))
    return ready.status, ready.reason, ready.message


def agent(state: JSON, **fields: Any) -> JSON:
    return pod_status("Running", container("agent", state, **fields), WORKSPACE)


def crash_loop(code: int, *, reason: str = "Error", message: str = "", restarts: int = 3, started: str = EARLIER) -> JSON:
    back_off = waiting("CrashLoopBackOff", "back-off 40s restarting failed container=agent pod=demo")
    return agent(back_off, last=terminated(code, reason=reason, message=message, started=started), restarts=restarts)


def test_a_pod_that_is_ready_can_be_talked_to() -> None:
    assert seen(READY) == ("True", "PodReady", "The session can be talked to.")


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="just created"),
        pytest.param(pod_status("Pending", scheduled=False), id="not looked at by the scheduler"),
        pytest.param(STARTING, id="containers are being created"),
        pytest.param(agent(running()), id="runs, not ready yet"),
        pytest.param(agent(running(), last=terminated(1), restarts=1), id="runs again after a crash"),
    ],
)
def test_a_pod_on_its_way_is_being_created(status: JSON) -> None:
    assert seen(status) == ("False", "Creating", "The pod is starting.")


def test_the_scheduler_says_why_a_pod_fits_nowhere() -> None:
    message = "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available."
    assert seen(pod_status("Pending", unschedulable=message)) == ("False", "Unschedulable", message)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", 'failed to pull image "registry.example/x:1": not found'),
        ("ImagePullBackOff", 'Back-off pulling image "registry.example/x:1"'),
        ("InvalidImageName", 'couldn\'t parse image reference "!!"'),
        ("ErrImageNeverPull", 'Container image "x" is not present with pull policy of Never'),
    ],
)
@pytest.mark.parametrize("name", ["agent", "workspace"])
def test_an_image_that_cannot_be_had_is_told_with_the_kubelets_words(name: str, reason: str, message: str) -> None:
    other = "workspace" if name == "agent" else "agent"
    status = pod_status("Pending", container(name, waiting(reason, message)), container(other, waiting("ContainerCreating")))
    assert seen(status) == ("False", "ImageError", f"{name}: {message}")


def test_an_image_error_without_a_message_names_its_reason() -> None:
    assert seen(agent(waiting("ErrImagePull")))[2] == "agent: ErrImagePull"


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
def test_a_container_that_cannot_be_made_is_told_with_the_kubelets_words(reason: str) -> None:
    assert seen(agent(waiting(reason, 'secret "keys" not found'))) == (
        "False",
        "ContainerError",
        'agent: secret "keys" not found',
    )


def test_a_crash_tells_exit_code_cause_and_restarts() -> None:
    assert seen(crash_loop(137, reason="OOMKilled")) == ("False", "Crashed", "agent: exit code 137 (OOMKilled), 3 restarts.")


def test_a_crash_ends_with_the_last_words_of_the_container() -> None:
    assert seen(crash_loop(1, message="Traceback ...\nValueError: no such model\n"))[2] == (
        "agent: exit code 1 (Error), 3 restarts. Traceback ...\nValueError: no such model"
    )


def test_long_last_words_are_cut_at_the_front() -> None:
    message = seen(crash_loop(1, message="x" * 5000 + "the cause"))[2]
    assert message.endswith("the cause")
    assert len(message) < 600


@pytest.mark.parametrize(
    "status", [crash_loop(1, message=FINAL), agent(terminated(1, message=FINAL))], ids=["backing off", "just"]
)
def test_a_report_among_the_last_words_is_not_shown_to_people(status: JSON) -> None:
    assert "{" not in seen(status)[2]


def test_a_crash_of_the_workspace_is_a_crash_too() -> None:
    status = pod_status("Running", container("agent", running(), ready=True), container("workspace", terminated(2)))
    assert seen(status)[1:] == ("Crashed", "workspace: exit code 2 (Error), 0 restarts.")


def test_a_container_that_runs_again_after_a_crash_is_ready() -> None:
    status = pod_status("Running", container("agent", running(), last=terminated(1), restarts=1), WORKSPACE, ready=True)
    assert seen(status)[0] == "True"


def test_a_workspace_that_is_back_after_a_crash_is_ready() -> None:
    back = container("workspace", running(), last=terminated(137, reason="OOMKilled"), restarts=2, ready=True)
    assert seen(pod_status("Running", container("agent", running(), ready=True), back, ready=True))[0] == "True"


def test_an_evicted_pod_says_what_the_node_ran_out_of() -> None:
    message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi."
    assert seen(pod_status("Failed", reason="Evicted", message=message)) == ("False", "Evicted", message)


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (ended("Succeeded"), "PodEnded", "The pod has ended (Succeeded)."),
        (ended("Failed", FINAL), "PodEnded", "The pod has ended (Failed)."),
        (ended("Failed", code=1), "PodGone", "The pod has failed: Error: agent: exit code 1"),
        (pod_status("Failed", reason="OutOfcpu", message="no cpu"), "PodRejected", "OutOfcpu: no cpu"),
        (pod_status("Failed", reason="NodeAffinity", message="no match"), "PodRejected", "NodeAffinity: no match"),
    ],
)
def test_a_pod_that_has_ended_says_how(status: JSON, reason: str, words: str) -> None:
    told = seen(status)
    assert told[:2] == ("False", reason)
    assert words in told[2]


def test_scheduling_gates_are_named() -> None:
    body = pod_body(status=pod_status("Pending"))
    body["spec"] = {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}, {"name": "other"}]}
    gated = readiness(Pod.of(body))
    assert (gated.status, gated.reason) == ("False", "SchedulingGated")
    assert "kueue.x-k8s.io/admission, other" in gated.message


ODD_TIMES = ["2026-05-04t12:00:00z", "2026-05-04T12:00:00+99:99", "yesterday", "", None, 7]


@pytest.mark.parametrize("odd", ODD_TIMES)
def test_an_odd_time_is_an_absent_one(odd: object) -> None:
    """The API server's date-time admits more than Python reads, and anyone who may write a pod's status may write anything."""
    over = terminated(0)
    over["terminated"]["finishedAt"] = odd
    over["terminated"]["startedAt"] = odd
    one = pod(status=pod_status("Running", container("agent", over)))
    assert agent_ended_at(one) is not None, "it has ended all the same"
    started_at(one)
    unplaced = pod_status("Pending", unschedulable="no node")
    unplaced["conditions"][0]["lastTransitionTime"] = odd
    unschedulable_since(pod(status=unplaced))


def test_an_end_without_a_time_counts_from_the_pods_creation() -> None:
    over = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    ended_at = agent_ended_at(pod(status=pod_status("Running", container("agent", over))))
    assert ended_at == parse_time(CREATED)


@pytest.mark.parametrize(
    ("status", "ran"),
    [
        (pod_status("Failed", reason="OutOfmemory"), False),
        (pod_status("Failed", container("agent", waiting("ContainerCreating"))), False),
        (pod_status("Failed", container("agent", terminated(128, reason="StartError", started=EPOCH))), False),
        (pod_status("Failed", container("agent", terminated(1))), True),
        (pod_status("Failed", container("agent", terminated(137, reason="ContainerStatusUnknown", started=EPOCH))), True),
        (pod_status("Failed", container("agent", waiting("CrashLoopBackOff"), last=terminated(1), restarts=1)), True),
        (READY, True),
    ],
)
def test_whether_anything_ran_is_read_from_the_containers(status: JSON, ran: bool) -> None:
    assert never_ran(pod(status=status)) is not ran


@pytest.mark.parametrize("status", [READY, STARTING, crash_loop(1)], ids=["ready", "starting", "crashed"])
def test_a_pod_that_is_being_deleted_is_going(status: JSON) -> None:
    assert seen(status, deleting=True) == ("False", "PodGone", "The pod is being deleted.")


# When it started.


def test_the_start_is_that_of_the_agents_container() -> None:
    status = pod_status("Running", container("workspace", running(EARLIER)), container("agent", running(STAMP)))
    assert started_at(pod(status=status)) == STAMP


def test_the_start_is_the_earliest_that_the_kubelet_remembers() -> None:
    assert started_at(pod(status=agent(running(STAMP), last=terminated(1, started=EARLIER), restarts=1))) == EARLIER
    assert started_at(pod(status=ended(started=EARLIER))) == EARLIER


@pytest.mark.parametrize("status", [{}, STARTING, agent(waiting("ErrImagePull"))], ids=["new", "creating", "no image"])
def test_a_container_that_never_ran_has_no_start(status: JSON) -> None:
    assert started_at(pod(status=status)) is None


def test_a_container_that_could_not_be_started_has_no_start() -> None:
    """The kubelet writes 1970 for it."""
    failed = terminated(128, reason="StartError", message="exec: no such file", started=EPOCH)
    assert started_at(pod(status=agent(waiting("CrashLoopBackOff"), last=failed))) is None
    assert started_at(pod(status=agent(failed))) is None


# The last report.


def test_the_final_report_is_read_from_the_termination_message() -> None:
    found = final_report(pod(status=ended(message=FINAL)))
    assert found is not None
    assert (found.outcome, found.sequence) == ("Completed", 7)


@pytest.mark.parametrize("message", ["", "Traceback", "{", '{"sequence": 1}', FINAL[:-5], "null", "[]"])
def test_any_other_termination_message_is_no_report(message: str) -> None:
    assert final_report(pod(status=ended(message=message))) is None


def test_a_cut_termination_message_still_tells_the_outcome() -> None:
    """A kubelet keeps the beginning of a message: less of it, the more containers the pod has."""
    first = report(outcome="Completed", usage={"input_tokens": 7}, sequence=9).model_dump_json()
    second = report(outcome="Completed", usage={"input_tokens": 7}, sequence=9, last_message="Bye. " * 200).model_dump_json()
    whole = final_report(pod(status=ended(message=f"{first}\n{second}")))
    assert whole is not None
    assert whole.last_message == "Bye. " * 200
    cut = final_report(pod(status=ended(message=f"{first}\n{second}"[: len(first) + 100])))
    assert cut is not None
    assert (cut.outcome, cut.usage.input_tokens, cut.last_message) == ("Completed", 7, None)


def test_a_report_in_the_workspaces_termination_message_does_not_count() -> None:
    """What the model runs can write there."""
    status = pod_status(
        "Failed", container("agent", terminated(1)), container("workspace", terminated(0, reason="Completed", message=FINAL))
    )
    assert final_report(pod(status=status)) is None


def test_a_pod_without_statuses_has_no_report() -> None:
    assert final_report(pod(status=pod_status("Failed", reason="NodeLost"))) is None


@pytest.mark.parametrize(
    ("lost", "reason", "words"),
    [
        (None, "PodGone", "gone"),
        (pod(status=READY, deleting=True), "PodGone", "being deleted"),
        (pod(status=pod_status("Failed", reason="Evicted", message="low on memory")), "Evicted", "low on memory"),
        (
            pod(status=pod_status("Failed", reason="NodeShutdown", message="The node shuts down")),
            "Evicted",
            "The node shuts down",
        ),
        (pod(status=DRAINED, deleting=True), "Evicted", "Eviction API: evicting"),
        # A kubelet calls a deleted pod failed before it lets it go.
        (pod(status=ended("Failed", code=143), deleting=True), "PodGone", "The pod was deleted"),
    ],
)
def test_what_became_of_a_lost_pod_is_told_in_the_clusters_words(lost: Pod | None, reason: str, words: str) -> None:
    told = loss(lost)
    assert (told.status, told.reason) == ("False", reason)
    assert words in told.message


NO_PYTHON = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: error during container init: exec: "python3": executable file not found in $PATH'
)


@pytest.mark.parametrize(
    ("state", "last"),
    [
        (waiting("RunContainerError", NO_PYTHON), None),
        (waiting("CrashLoopBackOff"), terminated(128, reason="StartError", message=NO_PYTHON, started=EPOCH)),
        (terminated(128, reason="StartError", message=NO_PYTHON, started=EPOCH), None),
    ],
)
def test_an_image_without_python_is_named(state: JSON, last: JSON | None) -> None:
    status, reason, message = seen(
        pod_status("Running", container("agent", running()), container("workspace", state, last=last))
    )
    assert (status, reason) == ("False", "ContainerError")
    assert message.startswith("workspace: ")
    for words in ("no python3", "3.9", "workspace.image"):
        assert words in message


def test_an_init_container_that_cannot_start_is_told_too() -> None:
    starting = pod_status("Pending", container("agent", waiting("PodInitializing")))
    body = {**starting, "initContainerStatuses": [container("workspace-server", waiting("ImagePullBackOff", "no such image"))]}
    assert seen(body) == ("False", "ImageError", "workspace-server: no such image")
    done = {**starting, "initContainerStatuses": [container("workspace-server", terminated(0))]}
    assert seen(done)[1] == "Creating"


def test_a_placed_pod_is_not_unschedulable() -> None:
    assert unschedulable_since(pod(status=READY)) is None
    assert unschedulable_since(pod(status=pod_status("Pending", scheduled=False))) is None


def test_a_preempted_pod_that_never_ran_was_evicted() -> None:
    preempted = pod_status("Failed", reason="Preempting", message="Preempted in order to admit critical pod")
    assert seen(preempted)[:2] == ("False", "Evicted")
