"""Commands in a session's pod read other containers' files and keys, and use up resources; the session keeps running."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from support.api import condition
from support.installation import Kubectl
from support.quota import Quota
from support.sessions import Sessions
from support.waiting import eventually

NAMESPACE = "e2e"
NOTHING = {"agent": 0, "workspace": 0}

LOOK_AROUND = """
echo ENV; env
echo PROC; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'
echo TOKENS; find / -name token -not -path '/proc/*' -exec cat {} + 2>/dev/null; cat /var/run/secrets/*/* 2>&1
echo STATE; ls /var/lib/agentsession 2>&1; find / -name 'session.db*' -not -path '/proc/*' 2>/dev/null
echo SOCKET; ls -A /run/agentsession
echo LOG; cat /dev/termination-log
echo MOUNTS; cat /proc/mounts
echo END
"""

KNOCK = """python3 - <<'EOF'
import urllib.error, urllib.request
def knock(method, path, **headers):
    request = urllib.request.Request("http://127.0.0.1:8080" + path, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    print(method, path, *headers.values(), status)
for path in ("/healthz", "/readyz", "/metrics", "/v1/session", "/v1/events", "/v1/messages", "/v1/openapi.json", "/nowhere"):
    knock("GET", path)
for path in ("/v1/submissions", "/v1/checkpoint", "/healthz"):
    knock("POST", path)
knock("GET", "/v1/session", Authorization="Bearer guess")
EOF"""

SQUAT = """python3 -c '
import os, socket
os.unlink("/run/agentsession/workspace.sock")
mine = socket.socket(socket.AF_UNIX)
mine.bind("/run/agentsession/workspace.sock")
mine.listen()
print("it is mine", flush=True)
while True:
    connection, _ = mine.accept()
    connection.sendall(b"{" * 1000000)
'"""


@pytest.fixture
def confined(cluster: Kubectl) -> Iterator[str]:
    """A class whose workspaces are small, so that little is enough to fill them."""
    body = cluster.json("get", "agentsessionclass", "scripted")
    limits = {"memory": "256Mi", "ephemeral-storage": "64Mi"}
    body["metadata"] = {"name": "confined"}
    requests = {"memory": "32Mi", "ephemeral-storage": "0"}  # without one the limit is the request
    body["spec"]["resources"] = {"workspace": {"requests": requests, "limits": limits}}
    cluster("apply", "-f", "-", text=json.dumps(body))
    yield "confined"
    cluster("delete", "agentsessionclass", "confined")


def test_it_reads_neither_credentials_nor_tokens_nor_the_private_volume(sessions: Sessions, cluster: Kubectl) -> None:
    secret = "sk-very-secret-0123456789"
    cluster("-n", NAMESPACE, "delete", "secret", "keys", "--ignore-not-found")
    cluster("-n", NAMESPACE, "create", "secret", "generic", "keys", f"--from-literal=OPENAI_API_KEY={secret}")
    (seen,) = sessions.run("spy", LOOK_AROUND, credentials={"secretName": "keys"})
    assert seen.rstrip().endswith("END"), "the whole command ran"
    assert secret not in seen
    assert base64.b64encode(secret.encode()).decode() not in seen
    assert "OPENAI_API_KEY" not in seen
    assert "AGENTSESSION_CONFIG" not in seen
    assert "eyJ" not in seen, "no service-account token"
    assert "session.db" not in seen
    # Beside the socket is what commands leave to one another: their directory and exported variables.
    assert seen.split("SOCKET\n")[1].split("LOG\n")[0].split() == ["workspace.sock", "workspace.sock.shell"]
    mounts = {line.split(" ")[1] for line in seen.split("MOUNTS\n")[1].splitlines() if " " in line}
    assert "/workspace" in mounts
    assert not [path for path in mounts if path.startswith(("/var/lib/agentsession", "/var/run", "/run/secrets"))]
    assert secret not in json.dumps(sessions.read("spy"))
    assert secret not in sessions.logs("spy")


def test_without_the_token_the_agent_says_only_that_it_is_well(sessions: Sessions) -> None:
    (seen,) = sessions.run("knock", KNOCK)
    answers = dict(line.rsplit(" ", 1) for line in seen.splitlines())
    assert answers.pop("GET /healthz") == answers.pop("GET /readyz") == "200"
    assert answers.pop("GET /v1/session Bearer guess") == "403"
    assert answers.pop("POST /healthz") == "405"
    assert len(answers) == 8
    assert set(answers.values()) == {"401"}, answers


def test_a_fork_bomb_ends_itself(sessions: Sessions) -> None:
    bomb, after = sessions.run("bomb", "bomb() { bomb | bomb & }; bomb; sleep 600", "sleep 1; ls -d /proc/[0-9]* | wc -l")
    # Where it takes all memory first, the kernel ends the server or the container, and either is started again.
    assert "all processes were killed: there were more than 512" in bomb or "files are kept, processes are not" in bomb
    assert int(after.splitlines()[-1]) < 20
    assert sessions.restarts("bomb")["agent"] == 0


def test_a_full_disk_is_emptied_by_who_filled_it(sessions: Sessions, confined: str) -> None:
    fill = "n=0; while true; do n=$((n + 1)); head -c 2000000 /dev/zero > {}/$n; sleep 0.05; done"
    one, two, size, clean = sessions.run(
        *(
            "disk",
            fill.format("/workspace"),
            fill.format("/tmp"),
            "du -sm /workspace /tmp",
            "rm -r /workspace/* /tmp/*; ls /tmp",
        ),
        className=confined,
    )
    for result in (one, two):
        assert "all processes were killed: the files in /workspace, /tmp, /dev/termination-log take" in result
        assert "MB, and may take at most 60 MB; remove some before you write more" in result
    assert sum(int(line.split()[0]) for line in size.splitlines()) < 150
    assert clean == "[no output]"
    assert sessions.restarts("disk") == NOTHING


def test_one_large_file_is_cut_at_the_limit(sessions: Sessions, confined: str) -> None:
    write = "head -c 150000000 /dev/zero > {0} 2>/dev/null; wc -c < {0}; rm -f {0} 2>/dev/null || : > {0}"
    large, log = sessions.run("large", write.format("large"), write.format("/dev/termination-log"), className=confined)
    for size in (large, log):
        assert 0 < int(size.splitlines()[-1]) <= 54_000_000


def test_a_command_that_takes_all_memory_dies_alone(sessions: Sessions, confined: str) -> None:
    grow = "python3 -c 'x = []\nwhile True: x.append(bytearray(10_000_000))'"
    together = f"for n in 1 2 3 4; do {grow.replace('while True', 'for _ in range(15)')} & done; wait; echo waited"
    one, several, after = sessions.run("memory", grow, together, "echo $((6 * 7))", className=confined)
    assert "MemoryError" in one or "exit code" in one
    assert "waited" in several or "files are kept, processes are not" in several
    assert after == "42\n"
    assert sessions.restarts("memory")["agent"] == 0


def test_background_processes_hold_neither_the_pod_nor_the_slot(sessions: Sessions, quota: Quota) -> None:
    quota.set(1, 1)
    stubborn = "trap '' TERM HUP INT; while true; do sleep 1; done"
    (started,) = sessions.run(
        "daemons", f'for n in 1 2 3; do setsid nohup sh -c "{stubborn}" >/dev/null 2>&1 & done; echo started'
    )
    assert started == "started\n"

    def released() -> bool:
        return condition(sessions.read("daemons"), "Admitted").get("reason") == "Released"

    eventually(released, within=30, what="the slot to be free")
    assert sessions.run("next", "echo next") == ["next\n"]


@pytest.mark.parametrize("name", ["KILL", "TERM", "STOP"])
def test_a_signal_to_everything_costs_the_command(sessions: Sessions, name: str) -> None:
    kept, killed, after = sessions.run(f"kill-{name.lower()}", "echo kept > file", f"kill -{name} -1; sleep 1", "cat file")
    assert kept == "[no output]"
    assert name == "STOP" or "files are kept, processes are not" in killed
    assert after == "kept\n"
    assert sessions.restarts(f"kill-{name.lower()}") == NOTHING


def test_a_signal_to_process_1_does_nothing(sessions: Sessions) -> None:
    said, after = sessions.run("kill-one", "echo kept > file; kill 1; kill -INT 1; kill -HUP 1; sleep 1; echo on", "cat file")
    assert (said, after) == ("on\n", "kept\n")
    assert sessions.restarts("kill-one") == NOTHING


def test_the_workspaces_socket_cannot_be_taken(sessions: Sessions) -> None:
    squat, daemon, after = sessions.run("squat", SQUAT, f"setsid nohup {SQUAT} >/dev/null 2>&1 & sleep 5", "echo on")
    assert "it is mine" in squat
    for result in (squat, daemon):
        assert "all processes were killed: the socket of the workspace's server was removed or replaced" in result
    assert after == "on\n"
    assert sessions.restarts("squat") == NOTHING
