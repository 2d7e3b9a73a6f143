"""A base image where no registry can be reached: Debian with its Python, by debootstrap.

The release is written down, not taken from the host: an image is the same on every host.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from images import host

SUITE = "bookworm"
RECIPE = 2
"""Raised when this module changes what comes out."""

# What apt and debootstrap leave behind, and what nobody reads in a container. Licences (copyright files) stay.
SHRINK = """
set -eu
rm -rf var/cache/apt/* var/lib/apt/lists/* var/cache/debconf/*-old var/log/* var/cache/ldconfig/*
rm -rf usr/share/man/* usr/share/info/* usr/share/locale/* usr/share/lintian usr/share/bash-completion
find usr/share/doc -type f ! -name copyright -delete
find usr/share/doc -type l -delete
find usr/share/doc -depth -type d -empty -delete
rm -f etc/resolv.conf etc/hostname
cat > etc/dpkg/dpkg.cfg.d/small <<'END'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
END
"""


def version() -> str:
    """What a root file system is known by, but for the day's security updates."""
    return f"{SUITE}-{os.uname().machine}-r{RECIPE}"


def archive(cache: Path, fresh: bool) -> Path:
    """The root file system as a tar, made once."""
    tar = cache / f"rootfs-{version()}.tar"
    if tar.exists() and not fresh:
        return tar
    if os.geteuid():
        raise host.Refusal("debootstrap needs root: run this as root, or start Docker, or name a base with --base IMAGE")
    host.install("debootstrap")
    work = Path(tempfile.mkdtemp(prefix="rootfs-", dir=cache))
    work.chmod(0o755)  # it becomes the image's /, which others than root must be able to enter
    try:
        with host.step(f"making a base image with debootstrap ({SUITE})", "1 minute"):
            _make(work, cache / "debootstrap.log")
            partial = tar.with_suffix(".partial")
            exclude = [f"--exclude=./{name}/*" for name in ("dev", "proc", "sys", "tmp", "run")]
            host.run(["tar", "-C", work, "--numeric-owner", "--one-file-system", "--sort=name", *exclude, "-cf", partial, "."])
            partial.rename(tar)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tar


def _make(work: Path, log: Path) -> None:
    log.unlink(missing_ok=True)
    mirrors = _mirrors()
    command = ["debootstrap", "--variant=minbase", "--include=python3,ca-certificates", SUITE, str(work)]
    host.run([*command, *[uri for uri, suite in mirrors if suite == SUITE][:1]], log)
    if mirrors:
        lines = [f"deb {uri} {suite} main\n" for uri, suite in mirrors]
        (work / "etc/apt/sources.list").write_text("".join(lines))
        chroot = ["chroot", str(work), "env", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        host.run([*chroot, "apt-get", "update", "-q"], log)
        host.run([*chroot, "apt-get", "dist-upgrade", "-qy", "--no-install-recommends"], log)
    host.run(["sh", "-c", f"cd '{work}' && {SHRINK}"], log)


def _mirrors() -> list[tuple[str, str]]:
    """Where this machine gets that release from, security updates included; empty on a machine of another release."""
    try:
        text = host.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
    except (host.Refusal, OSError):
        return []
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        uri, suite, component = line.split()
        if component == "main" and suite in (SUITE, f"{SUITE}-updates", f"{SUITE}-security") and (uri, suite) not in found:
            found.append((uri, suite))
    return found if any(suite == SUITE for _, suite in found) else []
