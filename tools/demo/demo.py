"""`make demo`: the main job, as a person would do it by hand, with every command shown."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.cluster import current_cluster  # noqa: E402 - after the path
from support.installation import SYSTEM, Kubectl, build_images, cluster_for, install, load_images  # noqa: E402

CLUSTER = "agentsession"
NAMESPACE = "agentsession-demo"
ANSWER_SECONDS = 120.0

SESSION = """\
apiVersion: agentsession.dev/v1alpha1
kind: AgentSession
metadata:
  name: {name}
spec:
  user: {user}
  mode: Task
  prompt: {prompt}
"""


QUOTA = """\
apiVersion: agentsession.dev/v1alpha1
kind: SessionQuota
metadata:
  name: demo
spec:
  maxSessions: 1
"""


class DemoFailed(Exception):
    """The demo did not show what it promises."""


class Demo:
    """The steps, in order."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def step(self, title: str) -> None:
        print(f"\n\033[1m[{time.monotonic() - self._started:5.1f} s] {title}\033[0m", flush=True)

    def run(self) -> None:
        self.step("A cluster (a few seconds; up to 12 minutes when Kubernetes must be built first)")
        kubeconfig = cluster_for(CLUSTER, ROOT / ".demo" / "kubeconfig")
        self.kubectl = Kubectl(kubeconfig)
        self.step("Images (a second when nothing has changed; some minutes the first time)")
        images = build_images()
        load_images(CLUSTER, images)
        self.step("helm install agentsession, with a small model that runs in the cluster and needs no key")
        install(self.kubectl, images)
        self._fresh_namespace()
        self.ask()
        self.show_quota()
        self.goodbye(kubeconfig)

    def _fresh_namespace(self) -> None:
        """The demo can be run twice: sessions of an earlier run make room."""
        listed = self.kubectl("get", "namespaces", "-o", "name")
        if f"namespace/{NAMESPACE}" not in listed.split():
            self.kubectl("create", "namespace", NAMESPACE)
        self.kubectl("-n", NAMESPACE, "delete", "agentsessions", "--all", "--wait=true")
        self.kubectl("-n", NAMESPACE, "wait", "--for=delete", "pods", "--all", "--timeout=60s")
        self._remove_quota()

    def ask(self) -> None:
        self.step("A session: kubectl apply, and the agent's answer")
        self._apply("hello", "alice", "What is the capital of France?")
        self._wait_finished("hello")
        print("\n$ kubectl logs -l agentsession.dev/session=hello")
        self._show("logs", "-l", "agentsession.dev/session=hello", "--tail=-1")
        status = self.kubectl.json("-n", NAMESPACE, "get", "agentsession", "hello")["status"]
        print(f"\nThe answer, from status.lastMessage:\n  {status.get('lastMessage')}")
        print("\n$ kubectl get agentsessions -o wide")
        self._show("get", "agentsessions", "-o", "wide")
        if status["phase"] != "Completed" or not status.get("lastMessage"):
            raise DemoFailed(f"the session ended as {status['phase']} without an answer")

    def show_quota(self) -> None:
        self.step("The quota at work: one slot, two sessions")
        print(f"$ kubectl apply -f - <<EOF\n{QUOTA}EOF")
        print(self.kubectl("apply", "-f", "-", text=QUOTA).strip(), flush=True)
        self._apply("first", "alice", "Write a long story about a lighthouse.", quiet=True)
        self._apply("second", "bob", "What colour is the sky?", quiet=True)
        waited = self._watch_queue()
        print("\nBoth are done; the second one started when the first one's slot was free.")
        self._show("get", "agentsessions")
        self._remove_quota()
        if not waited:
            raise DemoFailed("the second session never waited with reason GlobalLimitReached")

    def _watch_queue(self) -> bool:
        """Show each change until both have finished; whether the second one was seen waiting for the global cap."""
        last, waited = "", False
        deadline = time.monotonic() + 2 * ANSWER_SECONDS
        while time.monotonic() < deadline:
            table = self.kubectl("-n", NAMESPACE, "get", "agentsessions", "first", "second")
            shown = "\n".join(line.rsplit(None, 1)[0] for line in table.splitlines())  # without the age
            if shown != last:
                print(f"\n$ kubectl get agentsessions first second\n{table.rstrip()}", flush=True)
                last = shown
            second = next(line for line in table.splitlines() if line.startswith("second"))
            if "GlobalLimitReached" in second and not waited:
                waited = True
                self._show_use()
            phases = [line.split()[2] for line in table.splitlines()[1:]]
            if all(phase in ("Completed", "Failed") for phase in phases):
                if phases != ["Completed", "Completed"]:
                    raise DemoFailed(f"the two sessions ended as {phases}")
                return waited
            time.sleep(0.3)
        raise DemoFailed("the two sessions did not finish in time")

    def _show_use(self) -> None:
        """The quota's own view; its status is refreshed every 5 s."""
        self.kubectl("wait", "--for=jsonpath={.status.waiting}=1", "sessionquota/demo", "--timeout=15s")
        print("\n$ kubectl get sq")
        self._show("get", "sq")

    def goodbye(self, kubeconfig: Path) -> None:
        self.step("Done")
        print(
            f"Talk to the cluster:   export KUBECONFIG={kubeconfig}\n"
            f"                       kubectl -n {NAMESPACE} describe agentsession hello\n"
            f"The operator's log:    kubectl -n {SYSTEM} logs deploy/agentsession-operator\n"
            f"A session of your own: kubectl -n {NAMESPACE} apply -f manifests/samples/session.yaml"
        )
        if current_cluster() is None:
            print("Remove it all:         make demo-down")

    def _apply(self, name: str, user: str, prompt: str, *, quiet: bool = False) -> None:
        manifest = SESSION.format(name=name, user=user, prompt=prompt)
        if not quiet:
            print(f"$ kubectl apply -f - <<EOF\n{manifest}EOF")
        print(self.kubectl("-n", NAMESPACE, "apply", "-f", "-", text=manifest).strip(), flush=True)

    def _remove_quota(self) -> None:
        """What is left are the built-in limits."""
        self.kubectl("delete", "sessionquota", "demo", "--ignore-not-found")

    def _wait_finished(self, name: str) -> None:
        """Show the phases as they pass."""
        seen, deadline = "", time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            body = self.kubectl.json("-n", NAMESPACE, "get", "agentsession", name)
            phase = body.get("status", {}).get("phase", "Pending")
            if phase != seen:
                print(f"  {name}: {phase}", flush=True)
                seen = phase
            if phase in ("Completed", "Failed"):
                return
            time.sleep(0.2)
        raise DemoFailed(f"session {name} was still {seen} after {ANSWER_SECONDS:.0f} s; see `kubectl describe`")

    def _show(self, *arguments: str) -> None:
        print(self.kubectl("-n", NAMESPACE, *arguments).rstrip(), flush=True)


def main() -> None:
    """Exit status 0 when all that was promised was seen."""
    try:
        Demo().run()
    except DemoFailed as error:
        sys.exit(f"\nThe demo failed: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"\nThe demo failed: {' '.join(map(str, error.cmd))}: {(error.stderr or '').strip()}")
    except RuntimeError as error:
        sys.exit(f"\nThe demo failed: {error}")


if __name__ == "__main__":
    main()
