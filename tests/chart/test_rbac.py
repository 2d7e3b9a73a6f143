"""The operator's permissions are the requests that its code makes: none is missing, and none is more."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agentsession_operator.api import meta
from agentsession_operator.cluster import lease, token_key
from agentsession_operator.control import release_pods
from support.rendered import NAMESPACE, ROOT, Objects, Render, is_hook, only

CLUSTER = {
    # (API group, resource, verb): who asks for it
    ("agentsession.dev", "agentsessions", "get"): ["session_objects", "__main__"],
    ("agentsession.dev", "agentsessions", "list"): ["kinds", "watch"],
    ("agentsession.dev", "agentsessions", "watch"): ["watch"],
    ("agentsession.dev", "agentsessions/status", "patch"): ["reconciler"],
    ("agentsession.dev", "agentsessionclasses", "list"): ["kinds", "watch"],
    ("agentsession.dev", "agentsessionclasses", "watch"): ["watch"],
    ("agentsession.dev", "sessionquotas", "list"): ["kinds", "watch"],
    ("agentsession.dev", "sessionquotas", "watch"): ["watch"],
    ("agentsession.dev", "sessionquotas/status", "patch"): ["quota_status"],
    ("", "namespaces", "list"): ["kinds", "watch"],
    ("", "namespaces", "watch"): ["watch"],
    ("", "pods", "get"): ["session_objects"],
    ("", "pods", "list"): ["kinds", "watch"],
    ("", "pods", "watch"): ["watch"],
    ("", "pods", "create"): ["session_objects"],
    ("", "pods", "patch"): ["session_objects"],
    ("", "pods", "delete"): ["session_objects"],
    ("", "persistentvolumeclaims", "get"): ["session_objects"],
    ("", "persistentvolumeclaims", "create"): ["session_objects"],
    ("", "events", "create"): ["reconciler"],
    # kopf's resource observer (kopf/_core/reactor/observation.py); namespaces it leaves alone, since it runs clusterwide.
    ("apiextensions.k8s.io", "customresourcedefinitions", "list"): ["watch"],
    ("apiextensions.k8s.io", "customresourcedefinitions", "watch"): ["watch"],
}
OWN_NAMESPACE = {
    # (API group, resource, verb, name): who asks for it
    ("coordination.k8s.io", "leases", "get", "agentsession-operator"): ["lease"],
    ("coordination.k8s.io", "leases", "update", "agentsession-operator"): ["lease"],
    ("coordination.k8s.io", "leases", "create", "*"): ["lease"],
    ("", "secrets", "get", "agentsession-token-key"): ["token_key"],
    ("", "secrets", "create", "*"): ["token_key"],
}
UNINSTALLER = {
    # (API group, resource, verb, name), in the whole cluster
    ("", "pods", "list", "*"): ["release_pods"],
    ("", "pods", "patch", "*"): ["release_pods"],
}
UNINSTALLER_OWN_NAMESPACE = {
    ("apps", "deployments/scale", "patch", "agentsession-operator"): ["release_pods"],
}
# The public keys of the cluster (reports): by a role that Kubernetes itself keeps. Discovery (kopf) is anybody's.
KUBERNETES_OWN = {"system:service-account-issuer-discovery"}


def granted(role: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """A role as (API group, resource, verb, name), one for each that it grants."""
    return [
        (group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", ["*"])
    ]


def test_the_cluster_role_grants_what_the_code_uses_and_nothing_else(everything: Objects) -> None:
    rules = granted(only(everything, "ClusterRole", "agentsession-operator"))
    assert len(rules) == len(set(rules)), "a rule is there twice"
    assert {rule[:3] for rule in rules} == set(CLUSTER)


def test_the_namespaced_role_grants_exactly_what_the_code_uses(everything: Objects) -> None:
    role = only(everything, "Role", "agentsession-operator")
    assert role["metadata"]["namespace"] == NAMESPACE
    rules = granted(role)
    assert len(rules) == len(set(rules)), "a rule is there twice"
    assert set(rules) == set(OWN_NAMESPACE)


def test_the_uninstaller_may_do_what_it_does_and_nothing_else(everything: Objects) -> None:
    cluster = granted(only(everything, "ClusterRole", "agentsession-uninstall"))
    own = granted(only(everything, "Role", "agentsession-uninstall"))
    assert (set(cluster), len(cluster)) == (set(UNINSTALLER), len(UNINSTALLER))
    assert (set(own), len(own)) == (set(UNINSTALLER_OWN_NAMESPACE), len(UNINSTALLER_OWN_NAMESPACE))
    subject = {"kind": "ServiceAccount", "name": "agentsession-uninstall", "namespace": NAMESPACE}
    for kind, role in (("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")):
        binding = only(everything, kind, "agentsession-uninstall")
        assert binding["subjects"] == [subject]
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (role, "agentsession-uninstall")
    assert (
        only(everything, "Job", "agentsession-uninstall")["spec"]["template"]["spec"]["serviceAccountName"] == subject["name"]
    )


def test_the_names_that_are_granted_are_the_ones_in_the_code() -> None:
    names = {name for _, _, _, name in OWN_NAMESPACE} - {"*"}
    assert names == {lease.NAME, token_key.SECRET_NAME}
    assert {name for _, _, _, name in UNINSTALLER_OWN_NAMESPACE} == {release_pods.DEPLOYMENT}


def test_every_module_that_addresses_the_api_server_is_in_the_list() -> None:
    """A module that begins to talk to the API server must be entered above, and so be thought about."""
    package = ROOT / "operator" / "agentsession_operator"
    talking = {
        path.stem
        for path in package.rglob("*.py")
        if any(call in path.read_text() for call in ("path_of(", "core_path(", "lease_path(", "kopf.on.", "deployment_path("))
    }
    tables = (CLUSTER, OWN_NAMESPACE, UNINSTALLER, UNINSTALLER_OWN_NAMESPACE)
    listed = {module for table in tables for modules in table.values() for module in modules}
    assert talking - {"kube"} == listed


def test_the_operator_is_bound_to_nothing_else(everything: Objects) -> None:
    subject = {"kind": "ServiceAccount", "name": "agentsession-operator", "namespace": NAMESPACE}
    bindings = [item for item in everything if item["kind"] in ("ClusterRoleBinding", "RoleBinding")]
    bindings = [item for item in bindings if not is_hook(item)]
    assert all(binding["subjects"] == [subject] for binding in bindings)
    roles = {(binding["kind"], binding["roleRef"]["kind"], binding["roleRef"]["name"]) for binding in bindings}
    assert roles == {
        ("ClusterRoleBinding", "ClusterRole", "agentsession-operator"),
        ("RoleBinding", "Role", "agentsession-operator"),
        *(("ClusterRoleBinding", "ClusterRole", name) for name in KUBERNETES_OWN),
    }


def test_no_role_has_a_wildcard(everything: Objects) -> None:
    roles = [item for item in everything if item["kind"] in ("ClusterRole", "Role")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], role["metadata"]["name"]


READ = {"get", "list", "watch"}
WRITE = READ | {"create", "update", "patch", "delete", "deletecollection"}


@pytest.mark.parametrize(
    ("name", "aggregated_to", "sessions", "settings"),
    [
        ("agentsession-viewer", "view", READ, READ),
        ("agentsession-user", "edit", READ | {"create", "update", "patch", "delete"}, READ),
        ("agentsession-admin", "admin", WRITE, READ),
        ("agentsession-impersonator", None, {"impersonate"}, set()),
        ("agentsession-platform-admin", None, WRITE, WRITE),
    ],
)
def test_roles_for_people(
    everything: Objects, name: str, aggregated_to: str | None, sessions: set[str], settings: set[str]
) -> None:
    """Who holds a namespace has no say in the cluster's classes and quotas, and does not get around the quota per user."""
    role = only(everything, "ClusterRole", name)
    rules = granted(role)
    assert {verb for _, resource, verb, _ in rules if resource == "agentsessions"} == sessions
    for resource in ("agentsessionclasses", "sessionquotas"):
        assert {verb for _, about, verb, _ in rules if about == resource} == settings
    assert {(group, resource) for group, resource, _, _ in rules} <= {
        ("agentsession.dev", resource) for resource in ("agentsessions", "agentsessionclasses", "sessionquotas")
    }
    aggregation = [label for label in role["metadata"]["labels"] if label.startswith("rbac.authorization.k8s.io/")]
    assert aggregation == ([f"rbac.authorization.k8s.io/aggregate-to-{aggregated_to}"] if aggregated_to else [])


def test_the_user_policy_asks_for_the_verb_that_the_role_grants(render: Render) -> None:
    items = render()
    policy = only(items, "ValidatingAdmissionPolicy", "agentsession-user")["spec"]
    assert policy["failurePolicy"] == "Fail"
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert (rule["apiGroups"], rule["resources"], rule["operations"]) == (["agentsession.dev"], ["agentsessions"], ["CREATE"])
    (validation,) = policy["validations"]
    assert "check('impersonate')" in validation["expression"]
    assert "spec.user" in validation["message"]
    binding = only(items, "ValidatingAdmissionPolicyBinding", "agentsession-user")["spec"]
    assert binding == {"policyName": "agentsession-user", "validationActions": ["Deny"]}
    items = render("userPolicy.enabled=false")
    assert not [item for item in items if item["metadata"]["name"] == "agentsession-user" and "Policy" in item["kind"]]


def test_the_pod_policy_exempts_the_accounts_that_the_chart_makes(render: Render) -> None:
    items = render()
    policy = only(items, "ValidatingAdmissionPolicy", "agentsession-pod")["spec"]
    assert policy["failurePolicy"] == "Fail"
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert rule["operations"] == ["CREATE", "UPDATE"], "anyone who may delete a pod may delete it"
    assert {"pods", "pods/*", "bindings", "persistentvolumeclaims"} <= set(rule["resources"])
    accounts = {
        f"system:serviceaccount:{item['metadata']['namespace']}:{item['metadata']['name']}"
        for item in items
        if item["kind"] == "ServiceAccount"
    }
    assert set(re.findall(r"'(system:serviceaccount:[^']+)'", str(policy))) == accounts
    binding = only(items, "ValidatingAdmissionPolicyBinding", "agentsession-pod")["spec"]
    assert binding == {"policyName": "agentsession-pod", "validationActions": ["Deny"]}


def test_the_pod_policy_covers_every_key_that_the_operator_puts_on_pods(render: Render) -> None:
    text = str(only(render(), "ValidatingAdmissionPolicy", "agentsession-pod"))
    prefixes = set(re.findall(r"startsWith\('([^']+)'\)", text))
    assert prefixes == {f"{meta.GROUP}/"}
    keys = [value for name, value in vars(meta).items() if name.endswith(("_LABEL", "_ANNOTATION", "_FINALIZER"))]
    assert meta.SESSION_FINALIZER in keys
    assert all(key.startswith(f"{meta.GROUP}/") for key in keys)
