"""The two programs that build: docker, where its daemon answers, and buildah, which needs none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from images import host

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


RENEW = {"overlay": 60, "vfs": 6}
"""Builds after which buildah's storage starts from scratch: layers of old builds pile up, and vfs keeps a whole copy for each
step."""


class Builder(Protocol):
    """What building needs of a program. References are full: `docker.io/...` or `localhost/...`."""

    def identity(self, reference: str) -> str | None:
        """The id of an image that is here, or None."""

    def reachable(self, reference: str) -> bool:
        """Whether a registry answers for the image, within ten seconds."""

    def pull(self, reference: str) -> None:
        """Bring an image here."""

    def import_rootfs(self, tar: Path, reference: str) -> None:
        """Make an image of one layer."""

    def build(self, context: Path, target: str, base: str, reference: str, log: Path) -> None:
        """Build one target of the context's Containerfile."""

    def save(self, reference: str, archive: Path) -> None:
        """Write an image as a docker-archive that names it."""


@contextmanager
def secrets(folder: Path) -> Iterator[list[str]]:
    """Options that show the host's pip configuration to the builder stage, and leave no trace in a layer."""
    bundle = host.ca_bundle()
    config = folder / "pip.conf"
    config.touch(mode=0o600)  # an index address may hold a password
    config.write_text(host.pip_configuration(bundle is not None))
    try:
        yield ["--secret", f"id=pip,src={config}", *(["--secret", f"id=ca,src={bundle}"] if bundle else [])]
    finally:
        config.unlink()


class Docker:
    """The docker command; its daemon keeps the layers."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    @staticmethod
    def answers() -> bool:
        """Whether there is a daemon behind the command."""
        return bool(shutil.which("docker")) and host.succeeds(["docker", "version", "--format", "{{.Server.Version}}"])

    def identity(self, reference: str) -> str | None:
        command = ["docker", "image", "inspect", "--format", "{{.Id}}", reference]
        return host.run(command).strip() if host.succeeds(command) else None

    def reachable(self, reference: str) -> bool:
        return host.succeeds(["docker", "manifest", "inspect", reference])

    def pull(self, reference: str) -> None:
        host.run(["docker", "pull", "--quiet", reference])

    def import_rootfs(self, tar: Path, reference: str) -> None:
        host.run(["docker", "import", tar, reference])

    def build(self, context: Path, target: str, base: str, reference: str, log: Path) -> None:
        with secrets(self.cache) as options:
            options += [word for name in PROXIES if os.environ.get(name) for word in ("--build-arg", name)]
            host.run(
                [
                    *("env", "DOCKER_BUILDKIT=1", "docker", "build", "--progress", "plain", *options),
                    *("--build-arg", f"BASE_IMAGE={base}", "--target", target, "--tag", reference),
                    *("--file", context / "Containerfile", context),
                ],
                log,
            )

    def save(self, reference: str, archive: Path) -> None:
        host.run(["docker", "save", "--output", archive, reference])


class Buildah:
    """buildah as root, with a storage of its own beside the archives: nothing of the machine's is touched.

    Isolation is a chroot, which works inside containers too; what runs in it are the installers of Debian and PyPI.
    """

    def __init__(self, cache: Path) -> None:
        self.storage = cache / "buildah"
        self.driver = "overlay"
        self.cache = cache
        if os.geteuid():
            raise host.Refusal("buildah is used as root here: run this as root, or start Docker")
        host.install("buildah")
        # overlay needs a kernel and a file system that have it; vfs needs nothing, and copies everything for every step.
        if not host.succeeds([*self._command(), "images"], seconds=30):
            self.driver = "vfs"
            host.say("overlay mounts do not work here: buildah copies whole layers instead, which takes some times longer")
        self._renew()

    def _command(self) -> list[str]:
        root = self.storage / self.driver
        return ["buildah", "--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", self.driver]

    def _renew(self) -> None:
        counter = self.storage / self.driver / "builds"
        if counter.exists() and len(counter.read_bytes()) >= RENEW[self.driver]:
            host.say("starting buildah's storage again: it holds the layers of many old builds")
            host.succeeds([*self._command(), "rm", "--all"], seconds=120)
            host.succeeds([*self._command(), "rmi", "--all", "--force"], seconds=600)
            counter.unlink()

    def identity(self, reference: str) -> str | None:
        done = subprocess.run(
            [*self._command(), "inspect", "--type", "image", reference], stdin=subprocess.DEVNULL, capture_output=True
        )
        return None if done.returncode else str(json.loads(done.stdout)["FromImageID"])

    def reachable(self, reference: str) -> bool:
        return host.succeeds([*self._command(), "manifest", "inspect", reference])

    def pull(self, reference: str) -> None:
        host.run([*self._command(), "pull", "--quiet", reference])

    def import_rootfs(self, tar: Path, reference: str) -> None:
        container = host.run([*self._command(), "from", "scratch"]).strip()
        host.run([*self._command(), "add", "--quiet", container, tar, "/"])
        host.run([*self._command(), "commit", "--quiet", "--rm", container, reference])

    def build(self, context: Path, target: str, base: str, reference: str, log: Path) -> None:
        with (self.storage / self.driver / "builds").open("a") as counter:
            counter.write(".")
        with secrets(self.cache) as options:
            host.run(
                [
                    *(*self._command(), "bud", "--isolation", "chroot", "--layers", "--pull-never", *options),
                    *("--build-arg", f"BASE_IMAGE={base}", "--target", target, "--tag", reference),
                    *("--file", context / "Containerfile", context),
                ],
                log,
            )

    def save(self, reference: str, archive: Path) -> None:
        host.run([*self._command(), "push", "--quiet", reference, f"docker-archive:{archive}:{reference}"])
