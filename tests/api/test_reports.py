"""Reports of session pods: taken from the very pod, refused from everybody else."""

from __future__ import annotations

from support.api import JSON, Api, condition, session, sessions_path
from support.kubelet import Kubelet
from support.operator_process import OperatorProcess
from support.reports import report_of, send, token_for
from support.waiting import eventually


def test_a_report_is_seen_in_the_status(api: Api, operator: OperatorProcess, namespace: str) -> None:
    body = api.create(sessions_path(namespace), session("talks", mode="Interactive"))
    kubelet = Kubelet(api, namespace)
    pod = kubelet.pod_of(body)
    kubelet.scheduled(pod)
    kubelet.ready(pod)
    token = token_for(api, namespace, pod)
    stays = {"command": "the arguments stay in the pod"}
    question = {"id": "question_1", "server": "docs", "message": "Which one?", "form": None, "url": None}
    calls = [
        {"tool": "bash", "tool_call_id": "call-1", "arguments": stays, "reason": "it deletes"},
        {"tool": "docs__get", "tool_call_id": "call-2", "reason": "docs asks: Which one?", "question": question},
    ]
    usage = {"input_tokens": 5, "output_tokens": 2, "cost_usd": 0.25, "llm_calls": 1, "tool_calls": 0}
    report = report_of(body, 1, activity="AwaitingApproval", pending_approvals=calls, usage=usage)
    assert send(operator, body, token, report) == 204

    def seen() -> JSON:
        status = api.get(sessions_path(namespace, "talks"))["status"]
        assert status["phase"] == "AwaitingApproval"
        return status  # type: ignore[no-any-return]

    status = eventually(seen, what="the report in the status")
    assert status["usage"]["costUSD"] == "0.25"
    assert status["pendingApprovals"] == [
        {"tool": "bash", "toolCallId": "call-1", "reason": "it deletes"},
        {"tool": "docs__get", "toolCallId": "call-2", "reason": "docs asks: Which one?", "questionId": "question_1"},
    ]

    assert send(operator, body, token, report_of(body, 2, activity="Idle", last_message="Done.")) == 204
    assert send(operator, body, token, report_of(body, 1, activity="Processing")) == 204, "an old one is dropped in silence"

    def idle() -> bool:
        current = api.get(sessions_path(namespace, "talks"))
        assert condition(current, "Active")["reason"] == "Idle"
        return bool(current["status"]["lastMessage"] == "Done.")

    eventually(idle, what="the newer report in the status")


def test_only_the_sessions_own_pod_may_report(api: Api, operator: OperatorProcess, namespace: str) -> None:
    mine = api.create(sessions_path(namespace), session("mine"))
    other = api.create(sessions_path(namespace), session("other"))
    kubelet = Kubelet(api, namespace)
    my_pod, other_pod = kubelet.pod_of(mine), kubelet.pod_of(other)
    report = report_of(mine, 1)
    assert send(operator, mine, None, report) == 401
    assert send(operator, mine, "nonsense", report) == 401
    assert send(operator, mine, token_for(api, namespace, my_pod, "https://kubernetes.default.svc"), report) == 401
    assert send(operator, mine, token_for(api, namespace, other_pod), report) == 403
    assert send(operator, other, token_for(api, namespace, my_pod), report) == 404, "the path and the UID must agree"
    assert send(operator, mine, token_for(api, namespace, my_pod), {"session_uid": 1}) == 422
    assert send(operator, mine, token_for(api, namespace, my_pod), report) == 204
