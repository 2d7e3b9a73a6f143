"""What the chart makes, and how values change it."""

from __future__ import annotations

from typing import Any

from agentsession_operator.__main__ import parser
from agentsession_operator.api.meta import DEFAULT_CLASS_ANNOTATION, SESSION_UID_LABEL
from agentsession_operator.api.objects import SessionClass
from agentsession_operator.api.quota import DEFAULT_MAX_SESSIONS, DEFAULT_MAX_SESSIONS_PER_USER
from agentsession_operator.api.session import AgentSessionSpec
from agentsession_operator.control.release_pods import DEPLOYMENT
from agentsession_operator.decisions.resolve import Misconfigured, Resolved, resolve
from session_runtime.local_model import serve
from session_runtime.wire import RUNTIME_PORT, ToolSelection
from support.rendered import CHART, NAMESPACE, ROOT, Helm, Objects, Render, container, is_hook, objects, only


def environment(deployment: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item.get("value", "") for item in container(deployment)["env"]}


def test_the_chart_passes_lint(helm: Helm) -> None:
    for value in ("true", "false"):
        settings = f"localModel.enabled={value},networkPolicy.enabled={value}"
        done = helm("lint", "--strict", "--kube-version", "1.34.0", "--set", settings, str(CHART))
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_is_given_what_it_requires(render: Render) -> None:
    operator = only(render(), "Deployment", "agentsession-operator")
    assert operator["metadata"]["namespace"] == NAMESPACE
    assert operator["spec"]["replicas"] == 1
    assert operator["spec"]["strategy"] == {"type": "Recreate"}
    main = container(operator)
    assert main["command"] == ["python3", "-m", "agentsession_operator"]
    assert main["args"] == ["run"]
    sources = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in main["env"] if "valueFrom" in item}
    assert sources == {"POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid"}
    assert environment(operator)["REPORT_URL"] == f"http://agentsession-operator.{NAMESPACE}.svc:8080"


def test_every_environment_variable_is_one_that_the_operator_reads(render: Render) -> None:
    code = (ROOT / "operator" / "agentsession_operator" / "__main__.py").read_text()
    for name in environment(only(render(), "Deployment", "agentsession-operator")):
        assert f'"{name}"' in code, name


def test_images_follow_the_chart_or_the_values(render: Render) -> None:
    items = render("localModel.enabled=true")
    assert container(only(items, "Deployment", "agentsession-operator"))["image"] == "agentsession/operator:0.1.0"
    assert environment(only(items, "Deployment", "agentsession-operator"))["RUNTIME_IMAGE"] == "agentsession/runtime:0.1.0"
    assert container(only(items, "Deployment", "agentsession-local-model"))["image"] == "agentsession/local-model:0.1.0"
    items = render(
        "localModel.enabled=true",
        "imagePullSecrets[0]=key",
        *(f"image.{name}.tag=dev" for name in ("operator", "runtime", "localModel")),
        *(f"image.{name}.pullPolicy=Never" for name in ("operator", "runtime", "localModel")),
        "image.runtime.repository=registry.example:5000/runtime",
    )
    operator = only(items, "Deployment", "agentsession-operator")
    assert container(operator)["image"] == "agentsession/operator:dev"
    assert environment(operator)["RUNTIME_IMAGE"] == "registry.example:5000/runtime:dev"
    assert environment(operator)["IMAGE_PULL_POLICY"] == "Never"
    for name in ("agentsession-operator", "agentsession-local-model"):
        deployment = only(items, "Deployment", name)
        assert container(deployment)["imagePullPolicy"] == "Never"
        assert deployment["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "key"}]


def test_the_operators_values_reach_its_pod(render: Render) -> None:
    template = only(
        render(
            "operator.priorityClassName=system-cluster-critical",
            "operator.nodeSelector.pool=system",
            'operator.tolerations:=[{"operator": "Exists"}]',
            'operator.affinity:={"nodeAffinity": {}}',
            "operator.podAnnotations.team=agents",
            "operator.logLevel=DEBUG",
            'operator.resources:={"requests": {"cpu": 1}, "limits": null}',
        ),
        "Deployment",
        "agentsession-operator",
    )["spec"]["template"]
    spec = template["spec"]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["nodeSelector"] == {"pool": "system"}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["affinity"] == {"nodeAffinity": {}}
    assert template["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8080",
        "prometheus.io/path": "/metrics",
        "team": "agents",
    }
    assert spec["containers"][0]["resources"]["requests"] == {"cpu": 1, "memory": "128Mi"}
    assert {"name": "LOG_LEVEL", "value": "DEBUG"} in spec["containers"][0]["env"]


def test_the_uninstaller_runs_before_anything_is_deleted(render: Render) -> None:
    """What it needs is created before it. What fails stays, so that its log can be read, until the next try."""
    hooks = [item for item in render() if is_hook(item)]
    for item in hooks:
        annotations = item["metadata"]["annotations"]
        assert annotations == {
            "helm.sh/hook": "pre-delete",
            "helm.sh/hook-weight": "1" if item["kind"] == "Job" else "0",
            "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
        }
    assert {item["kind"] for item in hooks} == {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
        "Job",
    }


def test_the_uninstaller_runs_the_operators_command_where_the_operator_runs(render: Render) -> None:
    items = render(
        "image.operator.tag=dev",
        "image.operator.pullPolicy=Never",
        "imagePullSecrets[0]=key",
        "operator.priorityClassName=system-cluster-critical",
        "operator.nodeSelector.pool=system",
        'operator.tolerations:=[{"operator": "Exists"}]',
        'operator.affinity:={"nodeAffinity": {}}',
    )
    job = only(items, "Job", "agentsession-uninstall")["spec"]
    operator = only(items, "Deployment", "agentsession-operator")["spec"]["template"]["spec"]
    spec, main = job["template"]["spec"], container({"spec": job})
    for field in ("imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations", "affinity"):
        assert spec[field] == operator[field]
    for field in ("image", "imagePullPolicy", "command"):
        assert main[field] == operator["containers"][0][field]
    arguments = parser().parse_args(main["args"])
    assert arguments.command == "release-pods"
    assert main["env"] == [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]
    assert spec["restartPolicy"] == "Never"
    tries = job["backoffLimit"] + 1
    assert tries * arguments.timeout < job["activeDeadlineSeconds"] < 300, "Helm waits for 5 minutes"


def test_the_uninstaller_stops_the_deployment_that_the_chart_makes(render: Render) -> None:
    only(render(), "Deployment", DEPLOYMENT)


def test_services_find_their_pods_and_no_others(everything: Objects) -> None:
    deployments = {item["metadata"]["name"]: item for item in everything if item["kind"] == "Deployment"}
    for service in (item for item in everything if item["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        found = [
            name
            for name, deployment in deployments.items()
            if selector <= deployment["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert found == [service["metadata"]["name"]]
        # Session pods carry this one, and may lie in the same namespace (pod.session_pod).
        assert not selector <= {"app.kubernetes.io/name": "agentsession"}.items()
        ports = {port["name"]: port["containerPort"] for port in container(deployments[found[0]])["ports"]}
        (port,) = service["spec"]["ports"]
        assert ports[port["targetPort"]] == port["port"] == 8080


def test_the_default_class_needs_a_named_model_without_the_local_one(render: Render) -> None:
    default = SessionClass.of(stored(only(render(), "AgentSessionClass", "default")))
    assert only(render(), "AgentSessionClass", "default")["metadata"]["annotations"] == {DEFAULT_CLASS_ANNOTATION: "true"}
    classes = {"default": default}
    assert isinstance(resolve(AgentSessionSpec(user="a"), classes), Misconfigured)
    named = resolve(AgentSessionSpec.model_validate({"user": "a", "agent": {"model": "anthropic/claude-x"}}), classes)
    assert isinstance(named, Resolved)
    assert named.agent.tools == ()


def test_the_operator_and_the_local_model_listen_on_both_families(render: Render) -> None:
    """The Services have the cluster's own family, as they name none."""
    items = render("localModel.enabled=true")
    operator, model = (container(only(items, "Deployment", f"agentsession-{name}")) for name in ("operator", "local-model"))
    assert parser().parse_args(operator["args"]).http_host == "::"
    assert serve.arguments(model["args"]).host == "::"
    services = [item["spec"] for item in items if item["kind"] == "Service"]
    assert services
    assert not [spec for spec in services if "ipFamilies" in spec or "ipFamilyPolicy" in spec]


def test_the_local_model_is_the_default_where_it_runs(render: Render) -> None:
    items = render("localModel.enabled=true")
    classes = {"default": SessionClass.of(stored(only(items, "AgentSessionClass", "default")))}
    local = resolve(AgentSessionSpec(user="a"), classes)
    assert isinstance(local, Resolved)
    assert local.agent.model == "openai/smollm2-135m-instruct"
    assert local.agent.base_url == f"http://agentsession-local-model.{NAMESPACE}.svc:8080/v1"
    assert local.agent.tools == (ToolSelection(allow=()),), "it cannot call tools with sense"
    only(items, "Service", "agentsession-local-model")
    other = resolve(AgentSessionSpec.model_validate({"user": "a", "agent": {"model": "anthropic/claude-x"}}), classes)
    assert isinstance(other, Resolved)
    assert (other.agent.base_url, other.agent.tools) == (None, ())


def test_values_override_the_charts_default_class(render: Render) -> None:
    spec = only(
        render(
            "localModel.enabled=true",
            "defaultClass.spec.agent.maxIterations=7",
            'defaultClass.spec.models:=[{"match": "a/*"}]',
        ),
        "AgentSessionClass",
        "default",
    )["spec"]
    assert spec["agent"] == {"model": "openai/smollm2-135m-instruct", "maxIterations": 7}
    assert spec["models"] == [{"match": "a/*"}]


def test_there_is_no_quota_and_the_notes_name_the_built_in_limits(everything: Objects) -> None:
    """An object of the chart's would take back on each upgrade what the platform team has set, or conflict with it."""
    assert not [item for item in everything if item["kind"] == "SessionQuota"]
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    assert f"At most {DEFAULT_MAX_SESSIONS} sessions run at once, and {DEFAULT_MAX_SESSIONS_PER_USER} of one user" in notes


def test_what_is_off_is_not_there(render: Render) -> None:
    kinds = {
        (item["kind"], item["metadata"]["name"])
        for item in render("defaultClass.enabled=false", "userPolicy.enabled=false", "podPolicy.enabled=false")
    }
    assert not {kind for kind, _ in kinds} & {"AgentSessionClass", "NetworkPolicy", "ValidatingAdmissionPolicy"}
    assert "ValidatingAdmissionPolicyBinding" not in {kind for kind, _ in kinds}
    assert ("Deployment", "agentsession-local-model") not in kinds


def test_network_policies_let_session_pods_in(render: Render) -> None:
    items = render(
        "networkPolicy.enabled=true",
        "localModel.enabled=true",
        'networkPolicy.metricsFrom:=[{"namespaceSelector": {"matchLabels": {"a": "b"}}}]',
    )
    policies = {item["metadata"]["name"]: item["spec"] for item in items if item["kind"] == "NetworkPolicy"}
    assert set(policies) == {"agentsession-operator", "agentsession-local-model"}
    for policy in policies.values():
        assert policy["policyTypes"] == ["Ingress"]
        (rule,) = policy["ingress"]
        assert rule["from"][0]["podSelector"]["matchExpressions"] == [{"key": SESSION_UID_LABEL, "operator": "Exists"}]
        assert rule["from"][0]["namespaceSelector"] == {}
    assert policies["agentsession-operator"]["ingress"][0]["from"][1] == {"namespaceSelector": {"matchLabels": {"a": "b"}}}
    assert "agentsession-local-model" not in {
        item["metadata"]["name"] for item in render("networkPolicy.enabled=true") if item["kind"] == "NetworkPolicy"
    }


def test_all_that_is_namespaced_is_in_the_releases_namespace(everything: Objects) -> None:
    namespaced = {"ServiceAccount", "Service", "Deployment", "Role", "RoleBinding", "NetworkPolicy", "Job"}
    for item in everything:
        assert item["metadata"].get("namespace") == (NAMESPACE if item["kind"] in namespaced else None), item["kind"]


def test_definitions_are_where_helm_keeps_them_on_uninstall(helm: Helm, everything: Objects) -> None:
    assert not [item for item in everything if item["kind"] == "CustomResourceDefinition"]
    shown = objects(helm("show", "crds", str(CHART)).stdout)
    assert len(shown) == 3
    assert all(item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for item in shown)


def test_the_port_in_the_sample_is_the_runtimes() -> None:
    assert f"port-forward pod/$POD {RUNTIME_PORT}" in (ROOT / "manifests" / "samples" / "interactive.yaml").read_text()


def stored(item: dict[str, Any]) -> dict[str, Any]:
    """An object as the API server would give it back."""
    added = {"uid": "u", "resourceVersion": "1", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {**item, "metadata": {**item["metadata"], **added}}
