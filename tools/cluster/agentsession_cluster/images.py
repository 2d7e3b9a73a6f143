"""Images: the sandbox image made here, and archives loaded into a cluster's containerd."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import ClusterError
from .machine.node import SANDBOX_IMAGE
from .progress import step
from .state import Layout

_NAMESPACE = "k8s.io"
_IMPORT_SECONDS = 300


def architecture() -> str:
    """This machine's architecture as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def write_sandbox_archive(path: Path, busybox: Path, name: str = SANDBOX_IMAGE) -> None:
    """Writes a docker archive with one layer: busybox, whose `sleep` holds each pod's namespaces."""
    layer = _tar([("bin/busybox", busybox.read_bytes(), 0o755)])
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "sleep", "2147483647"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    path.write_bytes(
        _tar(
            [
                ("layer.tar", layer, 0o644),
                ("config.json", json.dumps(config).encode(), 0o644),
                ("manifest.json", json.dumps(manifest).encode(), 0o644),
            ]
        )
    )


def _tar(files: Iterable[tuple[str, bytes, int]]) -> bytes:
    """A tar with no times or owners in it, so that the same content gives the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content, mode in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def import_archive(layout: Layout, archive: Path, snapshotter: str) -> list[str]:
    """Imports a docker or OCI archive; returns the names of the images in it."""
    if not archive.is_file():
        raise ClusterError(f"there is no image archive {archive}", "Name a file that `docker save` or buildah wrote.")
    command = [
        *("ctr", "--address", str(layout.containerd_socket), "--namespace", _NAMESPACE),
        *("images", "import", "--snapshotter", snapshotter, str(archive)),
    ]
    result = _run(command, _IMPORT_SECONDS)
    if result.returncode:
        raise ClusterError(
            f"containerd did not take {archive}: {result.stderr.strip()[-500:]}",
            "Is it a docker or an OCI archive? `tar tf` shows manifest.json or index.json.",
        )
    return imported_names(result.stdout)


def imported_names(output: str) -> list[str]:
    """The image names in what `ctr images import` prints: `unpacking NAME (sha256:...)...done`."""
    return [line.split()[1] for line in output.splitlines() if line.startswith("unpacking ") and len(line.split()) > 1]


def save_image(name: str, archive: Path) -> None:
    """Writes a local image to a docker archive: from Docker where it has it, else from buildah's storage."""
    attempts = []
    if shutil.which("docker") and _run(["docker", "image", "inspect", name], 20).returncode == 0:
        attempts.append(["docker", "save", "-o", str(archive), name])
    if shutil.which("buildah"):
        target = f"docker-archive:{archive}:{name}"
        attempts.append(["buildah", "--storage-driver", "vfs", "push", "-q", name, target])
        attempts.append(["buildah", "push", "-q", name, target])
    errors = []
    for command in attempts:
        archive.unlink(missing_ok=True)  # buildah refuses to change an archive
        result = _run(command, _IMPORT_SECONDS)
        if result.returncode == 0:
            return
        errors.append(f"{' '.join(command[:2])}: {result.stderr.strip()[-300:]}")
    raise ClusterError(
        f"no image {name}" + "".join(f"\n  {error}" for error in errors),
        "Build it first (buildah bud or docker build), or load a file: `load image-archive FILE`.",
    )


def load_named(layout: Layout, names: list[str], snapshotter: str) -> None:
    """Loads images by name from Docker or buildah."""
    for name in names:
        # On disk rather than in /tmp, which may be memory: images have hundreds of megabytes.
        with (
            tempfile.TemporaryDirectory(dir=layout.directory, prefix="load-") as directory,
            step(f"loading {name}", "5 s a 100 MB"),
        ):
            archive = Path(directory) / "image.tar"
            save_image(name, archive)
            import_archive(layout, archive, snapshotter)


def _run(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {timeout:.0f} s")
