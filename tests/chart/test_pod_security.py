"""Every pod that the chart makes passes the restricted Pod Security Standard, and asks for no more than it needs."""

from __future__ import annotations

from typing import Any

from support.rendered import Objects

ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def pods(items: Objects) -> dict[str, dict[str, Any]]:
    found = {item["metadata"]["name"]: item["spec"]["template"]["spec"] for item in items if "template" in item.get("spec", {})}
    assert set(found) == {"agentsession-operator", "agentsession-local-model", "agentsession-uninstall"}
    return found


def test_every_pod_is_restricted(everything: Objects) -> None:
    for name, pod in pods(everything).items():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == 65532, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod), name
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= ALLOWED_VOLUMES, name
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_only_who_talks_to_the_api_server_has_a_token(everything: Objects) -> None:
    tokens = {name: pod["automountServiceAccountToken"] for name, pod in pods(everything).items()}
    assert tokens == {"agentsession-operator": True, "agentsession-local-model": False, "agentsession-uninstall": True}
    assert all(pod["enableServiceLinks"] is False for pod in pods(everything).values())


def test_every_container_has_a_memory_limit_and_every_server_has_probes(everything: Objects) -> None:
    for name, pod in pods(everything).items():
        for container in pod["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            assert bool(ports) is (name != "agentsession-uninstall")
            for probe in ("readinessProbe", "livenessProbe") if ports else ():
                assert container[probe]["httpGet"]["port"] in ports
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["memory"]


def test_probes_ask_for_paths_that_are_served(everything: Objects) -> None:
    from agentsession_operator.reports.http import make_app

    app = make_app(None, healthy=lambda: None, ready=lambda: None)  # type: ignore[arg-type]
    served = {getattr(route, "path", "") for route in app.routes}
    (operator,) = pods(everything)["agentsession-operator"]["containers"]
    asked = {probe: operator[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert asked == {"readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert set(asked.values()) <= served
