"""Whether an image runs as a restricted pod would run it: uid 65532, read-only root, no capabilities, no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from images import host

UID = 65532

# What must hold in every image, said by the Python that is in it.
COMMON = f"""
import importlib.util, os, shutil, sys
assert os.getuid() == os.getgid() == {UID}, os.getuid()
for folder in ("/", "/opt/agentsession", os.path.dirname(os.__file__)):
    try:
        open(os.path.join(folder, "x"), "w")
    except OSError:
        continue
    raise SystemExit(folder + " can be written")
for tool in ("gcc", "cc", "make", "strip", "pip", "hatchling"):
    assert not shutil.which(tool, path="/opt/agentsession/bin:/usr/bin:/bin"), tool
assert sys.prefix == "/opt/agentsession", sys.prefix
assert not importlib.util.find_spec("hatchling")
def bytecode(name):
    spec = importlib.util.find_spec(name)
    assert os.path.exists(spec.cached), name + " has no bytecode"
bytecode("json.decoder")
"""

OWN = {
    "operator": """
bytecode("agentsession_operator"), bytecode("kopf")
import agentsession_operator, session_runtime.wire, kopf, kubernetes.aio, fastapi
assert not importlib.util.find_spec("agent") and not importlib.util.find_spec("litellm")
assert not importlib.util.find_spec("session_runtime.session")
assert shutil.which("agentsession-operator")
""",
    "runtime": """
bytecode("session_runtime"), bytecode("litellm")
import agent, session_runtime, mcp, fastapi, litellm
assert not importlib.util.find_spec("agentsession_operator")
assert not importlib.util.find_spec("session_runtime.local_model")
assert shutil.which("bash") and shutil.which("git") is None
assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
""",
    "local-model": """
import subprocess, time, urllib.request, json
program = "/opt/agentsession/local-model/serve.py"
server = subprocess.Popen([sys.executable, "-P", program, "--host", "::", "--port", "8080", "--context", "512"])
url = "http://127.0.0.1:8080"
for _ in range(300):
    try:
        assert urllib.request.urlopen(url + "/health").status == 200
        break
    except OSError:
        assert server.poll() is None
        time.sleep(0.1)
body = {"messages": [{"role": "system", "content": "Answer in one short sentence."},
                     {"role": "user", "content": "What is the capital of France?"}]}
request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
assert "Paris" in answer, answer
server.terminate()
assert server.wait(5) == 0
""",
}


def check(name: str, archive: Path) -> None:
    """Run the image's checks with runc; a failure is a refusal that shows what it said."""
    if os.geteuid():
        raise host.Refusal("--check starts containers with runc, as root: run this as root")
    host.install("runc")
    bundle = Path(tempfile.mkdtemp(prefix="check-", dir=host.cache()))
    container = f"agentsession-check-{bundle.name}"
    try:
        with host.step(f"checking {name}", "10 s"):
            bundle.chmod(0o755)
            config = unpack(archive, bundle / "rootfs")
            (bundle / "config.json").write_text(json.dumps(specification(config, ["python", "-P", "-c", COMMON + OWN[name]])))
            host.run(["runc", "run", "--bundle", bundle, container])
    finally:
        subprocess.run(["runc", "delete", "--force", container], capture_output=True)
        shutil.rmtree(bundle, ignore_errors=True)


def unpack(archive: Path, root: Path) -> dict[str, Any]:
    """Lay an archive's layers over each other in a folder; the image's configuration."""
    root.mkdir()
    with tarfile.open(archive) as tar:
        manifest: dict[str, Any] = json.loads(_content(tar, "manifest.json"))[0]
        for layer in manifest["Layers"]:
            unpacker = subprocess.Popen(["tar", "-C", root, "--numeric-owner", "-xpf", "-"], stdin=subprocess.PIPE)
            stream = tar.extractfile(layer)
            assert stream is not None
            assert unpacker.stdin is not None
            shutil.copyfileobj(stream, unpacker.stdin, 1 << 20)
            unpacker.stdin.close()
            if unpacker.wait():
                raise host.Refusal(f"{archive}: {layer} cannot be unpacked")
        for mark in list(root.rglob(".wh.*")):
            gone = mark.with_name(mark.name.removeprefix(".wh."))
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
            mark.unlink()
        config: dict[str, Any] = json.loads(_content(tar, manifest["Config"]))["config"]
        return config


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def specification(config: dict[str, Any], command: list[str]) -> dict[str, Any]:
    """An OCI runtime specification: what the restricted Pod Security Standard asks for, and no network but loopback."""
    if config["User"] != f"{UID}:{UID}":
        raise host.Refusal(f"the image's user is {config['User']!r}, not {UID}:{UID}")
    tmpfs = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": UID, "gid": UID},
            "args": command,
            "env": config["Env"],
            "cwd": config.get("WorkingDir") or "/",
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", **tmpfs},
            {"destination": "/tmp", **tmpfs},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
    }
