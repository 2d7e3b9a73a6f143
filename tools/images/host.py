"""What the images need of the machine (cache folder, programs, pip's configuration), and telling a person what happens."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from images import plan

CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Refusal(Exception):
    """Something a person can put right; the message says how."""


def cache() -> Path:
    """The folder that outlives checkouts."""
    path = Path(os.environ.get("AGENTSESSION_CACHE_DIR") or Path.home() / ".cache" / "agentsession") / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def say(text: str) -> None:
    """A line of progress, on stderr: stdout belongs to the results."""
    print(f"images: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(what: str, usually: str) -> Iterator[None]:
    """Say what begins and how long it usually takes, then how long it took."""
    say(f"{what} (usually {usually})")
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.0f} s")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One build at a time: tests and a demo may want the same images at once."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of the images")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str | Path], log: Path | None = None) -> str:
    """Run a program; its standard output. A failure shows the end of what it said.

    With `log` everything goes to that file instead, and the answer is empty.
    """
    words = [str(word) for word in command]
    if log is None:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise Refusal(_failed(words, done.returncode, done.stdout + done.stderr))
        return done.stdout
    with log.open("ab") as file:
        code = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file).returncode
    if code:
        raise Refusal(_failed(words, code, log.read_text(errors="replace")) + f"\n(all of it: {log})")
    return ""


def _failed(command: Sequence[str], code: int, output: str) -> str:
    tail = "\n".join("    " + line for line in output.splitlines()[-25:])
    return f"`{' '.join(command[:6])} ...` ended with {code}:\n{tail}"


def succeeds(command: Sequence[str | Path], seconds: float = 10) -> bool:
    """Whether a program ends well within that time."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def install(*programs: str) -> None:
    """Install Debian's packages of these names where the programs are missing, saying so first."""
    missing = [name for name in programs if not shutil.which(name)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Refusal(f"{', '.join(missing)}: not installed, and no apt-get to do it: install it, or start Docker")
    if os.geteuid():
        raise Refusal(f"{', '.join(missing)}: not installed: run `sudo apt-get install {' '.join(missing)}`, or start Docker")
    extra = ["debian-archive-keyring"] if "debootstrap" in missing else []  # not there on Ubuntu
    with step(f"installing with apt-get: {' '.join(missing)}", "20 s"):
        log = cache() / "apt.log"
        log.unlink(missing_ok=True)
        environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
        run([*environment, "apt-get", "update", "-q"], log)
        run([*environment, "apt-get", "install", "-qy", "--no-install-recommends", *missing, *extra], log)


def ca_bundle() -> Path | None:
    """The certificates that this machine trusts: it may sit behind a proxy or a mirror with a CA of its own."""
    named = (os.environ.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    return next((Path(name) for name in (*named, *CA_BUNDLES) if name and Path(name).is_file()), None)


def pip_configuration(ca: bool) -> str:
    """The pip.conf for the builder stage: where this machine's pip and uv get packages."""
    parser = configparser.RawConfigParser(strict=False)
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    parser.read(["/etc/pip.conf", home / ".pip/pip.conf", config / "pip/pip.conf", os.environ.get("PIP_CONFIG_FILE", "")])
    options = dict(parser["global"]) if parser.has_section("global") else {}
    return plan.pip_configuration(os.environ, options, ca)


def write_context(folder: Path, sources: Sequence[plan.Source]) -> None:
    """The build's context: exactly the files that were hashed, with one time and two modes, so that builders' caches hit."""
    for source in sources:
        path = folder / source.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.content)
        path.chmod(0o755 if source.executable else 0o644)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (1_577_836_800, 1_577_836_800))
