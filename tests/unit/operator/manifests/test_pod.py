"""The session's pod: restricted, with the credentials in one container only, and under 128 KiB a string."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession_operator.api.names import bearer_token, token_sha256
from agentsession_operator.api.objects import Pod, Session
from agentsession_operator.api.session import MAX_PROMPT
from agentsession_operator.api.workspace import WorkspaceStatus
from agentsession_operator.manifests.claim import session_claim
from agentsession_operator.manifests.ownership import is_owned
from agentsession_operator.manifests.pod import session_config
from session_runtime.wire import (
    CONFIG_ENV,
    CREDENTIAL_PREFIX,
    HEADER_PREFIX,
    REPORT_AUDIENCE,
    STATE_DIR,
    WORKSPACE_DIR,
    McpHeader,
    config_from_environment,
)
from support.control_plane.builders import INSTALLATION, JSON, resolved, session
from support.control_plane.pods import KEPT, containers, environment, manifest, persistent
from support.control_plane.strategies import session_names, uids

LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
LONGEST_STRING = 128 * 1024
"""Linux' MAX_ARG_STRLEN: execve refuses a longer string, its name and its end counted."""


def round_trip(of: Session) -> None:
    """The runtime reads what the operator knows, though the kubelet has looked for references to expand."""
    values = environment(manifest(of))
    assert config_from_environment(values) == session_config(of, resolved(of), INSTALLATION)
    for name, value in values.items():
        assert "$" not in value
        assert len(f"{name}={value}\0".encode()) <= LONGEST_STRING


# Isolation.


def test_there_are_two_plain_containers() -> None:
    """And no other, unless the class names an image for the workspace: each costs time at the start."""
    spec = manifest()["spec"]
    assert list(containers(manifest())) == ["agent", "workspace"]
    assert "initContainers" not in spec
    assert "ephemeralContainers" not in spec
    assert spec["restartPolicy"] == "OnFailure"


@pytest.mark.parametrize("name", ["agent", "workspace"])
def test_a_container_is_restricted_as_pod_security_wants_it(name: str) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, profile Restricted."""
    pod, context = manifest()["spec"]["securityContext"], containers(manifest())[name]["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_pod_shares_nothing_with_its_node() -> None:
    spec = manifest()["spec"]
    assert not any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"))
    assert {next(key for key in volume if key != "name") for volume in spec["volumes"]} == {"emptyDir", "projected"}
    assert not any("hostPort" in port for item in spec["containers"] for port in item.get("ports", ()))


def test_the_pod_has_no_api_token_and_no_addresses_of_services() -> None:
    spec = manifest()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_the_report_token_is_for_reports_and_in_the_agent_only() -> None:
    pod = manifest()
    projected = [volume for volume in pod["spec"]["volumes"] if "projected" in volume]
    (token,) = [source["serviceAccountToken"] for volume in projected for source in volume["projected"]["sources"]]
    assert token["audience"] == REPORT_AUDIENCE
    assert 600 <= token["expirationSeconds"] <= 3600
    mounts = {name: [mount["name"] for mount in item["volumeMounts"]] for name, item in containers(pod).items()}
    assert projected[0]["name"] in mounts["agent"]
    assert projected[0]["name"] not in mounts["workspace"]


def test_the_containers_share_the_socket_and_the_mark_of_the_end() -> None:
    mounts = {name: {mount["name"]: mount for mount in item["volumeMounts"]} for name, item in containers(manifest()).items()}
    assert mounts["agent"].keys() & mounts["workspace"].keys() == {"socket", "session-end"}
    assert mounts["workspace"]["session-end"]["readOnly"], "a command could end the workspace for good"
    assert "readOnly" not in mounts["agent"]["session-end"]
    assert "state" not in mounts["workspace"]


def test_credentials_reach_the_agent_under_a_prefix_and_never_the_workspace() -> None:
    pod = manifest(session(credentials={"secretName": "my-keys"}))
    assert containers(pod)["agent"]["envFrom"] == [{"prefix": CREDENTIAL_PREFIX, "secretRef": {"name": "my-keys"}}]
    workspace = json.dumps(containers(pod)["workspace"])
    assert "my-keys" not in workspace
    assert not {"env", "envFrom"} & containers(pod)["workspace"].keys()


def test_a_header_reaches_the_agent_from_its_secret_never_the_workspace() -> None:
    ref = {"name": "my-keys", "key": "docs"}
    server = {"name": "docs", "url": "https://d.example", "headers": [{"name": "Authorization", "secretKeyRef": ref}]}
    pod = manifest(session(agent={"mcpServers": [server]}), allowMCPServers=True)
    variable = f"{HEADER_PREFIX}0_0"
    assert {"name": variable, "valueFrom": {"secretKeyRef": ref}} in containers(pod)["agent"]["env"]
    values = {item["name"]: item["value"] for item in containers(pod)["agent"]["env"] if "value" in item}
    (found,) = config_from_environment(values).agent.mcp_servers
    assert found.headers == (McpHeader(name="Authorization", variable=variable),)
    assert "my-keys" not in json.dumps([values, containers(pod)["workspace"]])


def test_a_session_without_credentials_refers_to_no_secret() -> None:
    assert "secretRef" not in json.dumps(manifest())


def test_no_key_of_the_secret_can_replace_configuration_or_a_header() -> None:
    assert not CONFIG_ENV.startswith(CREDENTIAL_PREFIX)
    assert not HEADER_PREFIX.startswith(CREDENTIAL_PREFIX)


def test_the_prompt_is_for_the_agent_alone() -> None:
    pod = manifest(session(prompt="a very private prompt"))
    assert "private" in json.dumps(containers(pod)["agent"])
    assert "private" not in json.dumps(containers(pod)["workspace"])
    assert "private" not in json.dumps(pod["metadata"])


def test_the_pod_knows_its_bearer_tokens_hash_only() -> None:
    token = bearer_token(INSTALLATION.token_key, "uid-of-demo")
    text = json.dumps(manifest())
    assert token_sha256(token) in text
    assert token not in text
    assert INSTALLATION.token_key.hex() not in text


def test_the_key_does_not_stand_in_the_text_of_the_installation() -> None:
    assert "kkk" not in repr(INSTALLATION)


@pytest.mark.parametrize("name", ["agent", "workspace"])
def test_a_containers_last_words_are_kept_when_it_fails(name: str) -> None:
    """The condition Crashed quotes them; without this only what the runtime wrote itself would be there."""
    assert containers(manifest())[name]["terminationMessagePolicy"] == "FallbackToLogsOnError"


# The workspace's image.


def test_the_workspaces_server_is_copied_into_a_foreign_image() -> None:
    pod = manifest(workspace={"image": "acme/toolbox:3"})
    (writer,), found = pod["spec"]["initContainers"], containers(pod)
    assert (writer["image"], found["agent"]["image"]) == (INSTALLATION.runtime_image, INSTALLATION.runtime_image)
    assert found["workspace"]["image"] == "acme/toolbox:3"
    file = writer["args"][-1]
    assert found["workspace"]["command"] == ["python3", "-I", file]
    assert found["workspace"]["args"] == containers(manifest())["workspace"]["args"]
    folder = file.rsplit("/", 1)[0]
    assert writer["volumeMounts"] == [{"name": "bundle", "mountPath": folder}]
    assert {"name": "bundle", "mountPath": folder, "readOnly": True} in found["workspace"]["volumeMounts"]
    for name in ("passwd", "group"):
        mount = {"name": "bundle", "mountPath": f"/etc/{name}", "subPath": name, "readOnly": True}
        assert mount in found["workspace"]["volumeMounts"]
    assert "bundle" not in {mount["name"] for mount in found["agent"]["volumeMounts"]}


def test_the_container_that_puts_it_there_is_restricted_and_knows_nothing() -> None:
    pod = manifest(session(credentials={"secretName": "my-keys"}), workspace={"image": "acme/toolbox:3"})
    (writer,) = pod["spec"]["initContainers"]
    assert writer["securityContext"] == containers(pod)["agent"]["securityContext"]
    assert writer["resources"]["limits"].keys() >= {"memory", "ephemeral-storage"}
    assert not {"env", "envFrom"} & writer.keys()


# What lasts.


def test_an_ephemeral_session_has_its_folders_in_the_pod() -> None:
    spec = manifest()["spec"]
    assert not any("persistentVolumeClaim" in volume for volume in spec["volumes"])
    assert not any("subPath" in mount for item in spec["containers"] for mount in item["volumeMounts"])


def test_both_folders_are_on_the_claim_and_each_container_mounts_its_own() -> None:
    """What the model runs cannot read the session's database."""
    pod = persistent()
    (claim,) = [volume for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume]
    assert claim["persistentVolumeClaim"] == {"claimName": "demo-claim"}
    mounted = {
        name: [(mount["mountPath"], mount["subPath"]) for mount in item["volumeMounts"] if mount["name"] == claim["name"]]
        for name, item in containers(pod).items()
    }
    assert mounted == {"agent": [(STATE_DIR, "state")], "workspace": [(WORKSPACE_DIR, "work")]}


def test_both_kinds_of_pod_mount_the_same_folders() -> None:
    def paths(pod: JSON) -> list[list[str]]:
        return [[mount["mountPath"] for mount in item["volumeMounts"]] for item in pod["spec"]["containers"]]

    assert paths(persistent()) == paths(manifest())
    volumes = {volume["name"] for volume in persistent()["spec"]["volumes"]}
    assert {mount["name"] for item in persistent()["spec"]["containers"] for mount in item["volumeMounts"]} == volumes


def test_the_owner_of_files_is_not_changed_again_at_every_start() -> None:
    assert persistent()["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


@given(session_names, uids)
def test_the_claim_belongs_to_its_session_as_its_pod_does(name: str, uid: str) -> None:
    of = session(name, uid=uid)
    claim, meta = session_claim(of, KEPT), manifest(of)["metadata"]
    assert is_owned(claim, of)
    assert not is_owned(claim, session(name, uid="another"))
    assert claim["metadata"]["ownerReferences"] == meta["ownerReferences"]
    assert claim["metadata"]["labels"] == meta["labels"]
    assert claim["metadata"]["namespace"] == meta["namespace"]


def test_a_claim_asks_for_what_the_session_got() -> None:
    assert session_claim(session(), KEPT)["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}},
    }
    fast = WorkspaceStatus(claim_name="demo-claim", size="5Gi", storage_class_name="fast")
    assert session_claim(session(), fast)["spec"]["storageClassName"] == "fast"


# Identity.


def test_the_pod_belongs_to_its_session() -> None:
    (owner,) = manifest()["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "agentsession.dev/v1alpha1",
        "kind": "AgentSession",
        "name": "demo",
        "uid": "uid-of-demo",
        "controller": True,
        "blockOwnerDeletion": False,
    }


@given(session_names, uids)
def test_the_operator_knows_its_own_pod_again(name: str, uid: str) -> None:
    of = session(name, uid=uid)
    body = manifest(of)
    body["metadata"] |= {"uid": "pod", "resourceVersion": "1"}
    found = Pod.of(body)
    assert (found.session_uid, found.session_name, found.user) == (uid, name, "ada")
    assert (found.phase, found.ended) == ("Pending", False)


@given(session_names, uids)
def test_labels_are_valid_whatever_the_sessions_name(name: str, uid: str) -> None:
    for value in manifest(session(name, uid=uid))["metadata"]["labels"].values():
        assert len(value) <= 63
        assert LABEL_VALUE.fullmatch(value)


def test_the_name_label_is_left_out_where_the_name_is_too_long() -> None:
    assert manifest(session("n" * 63))["metadata"]["labels"]["agentsession.dev/session"] == "n" * 63
    assert "agentsession.dev/session" not in manifest(session("n" * 64))["metadata"]["labels"]


def test_a_user_of_any_spelling_stands_in_an_annotation() -> None:
    user = "oidc:Ada Lovelace <ada@example.org> $(HOME) ünïcode"
    assert manifest(session(user=user))["metadata"]["annotations"]["agentsession.dev/user"] == user


def test_the_same_session_always_has_the_same_pod() -> None:
    assert json.dumps(manifest()) == json.dumps(manifest())


def test_the_report_is_sent_to_the_sessions_own_address() -> None:
    url = session_config(session(), resolved(), INSTALLATION).report_url
    assert url == "http://operator.example:8080/v1/sessions/team/demo/report"


def test_where_the_archive_goes_is_the_classs_to_say() -> None:
    assert session_config(session(), resolved(), INSTALLATION).archive_repository is None
    kept = resolved(archive={"huggingFaceRepository": "team/sessions"})
    assert session_config(session(), kept, INSTALLATION).archive_repository == "team/sessions"


# The session on its way to the pod.


def test_a_prompt_of_the_greatest_length_and_the_widest_characters_arrives() -> None:
    round_trip(session(prompt="🦊" * MAX_PROMPT, agent={"instructions": "🐻" * 32_768}))


def test_everything_that_an_agent_can_be_told_arrives() -> None:
    policy = [{"tool": "bash", "arguments": {"command": "rm $(X)*"}, "action": "Ask", "reason": "it deletes"}]
    tools = {"allow": ["b*"], "deny": ["*h"]}
    round_trip(session(agent={"tools": tools, "approvalPolicy": policy}, budget={"tokens": 7, "costUSD": "0.1"}))


@pytest.mark.parametrize("unit", ["$", "$(", "\\", '"', "\n", "\x01", "a", "é", "\u2028", "\\$(X)\\\\$"])
def test_a_prompt_of_characters_that_are_escaped_arrives(unit: str) -> None:
    round_trip(session(prompt=(unit * MAX_PROMPT)[:MAX_PROMPT]))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from('$(){}\\"'), min_size=1))
def test_any_prompt_arrives_and_can_ask_the_kubelet_for_nothing(prompt: str) -> None:
    round_trip(session(prompt=prompt, user=prompt[:256]))


def test_a_short_session_is_in_one_piece() -> None:
    assert list(environment(manifest())) == [CONFIG_ENV]


def test_no_container_has_a_reference_that_the_kubelet_expands() -> None:
    pod = manifest(session(prompt="$(AGENTSESSION_CREDENTIAL_OPENAI_API_KEY)", agent={"model": "$(X)", "instructions": "$(Y)"}))
    for item in pod["spec"]["containers"]:
        assert "$(" not in json.dumps([item.get("env"), item.get("command"), item.get("args")])
