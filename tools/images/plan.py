"""What the images are made of, what they are called, and what builds them: decisions as functions of values."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = "Containerfile"
DEFAULT_BASE = "docker.io/library/python:3.13-slim"
REPOSITORY = "agentsession"
SKIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache"}
HASH_LENGTH = 12


@dataclass(frozen=True)
class Image:
    """One image: a target of the Containerfile, and what its stages copy from the checkout."""

    name: str
    inputs: tuple[str, ...]
    cold: str
    """How long it usually takes from nothing, in words for a person who waits."""
    warm: str
    """The same when only the project's own code has changed."""

    def repository(self) -> str:
        """The name in a pod's `image:` field, without the tag."""
        return f"{REPOSITORY}/{self.name}"


IMAGES = (
    Image(
        "operator",
        (
            "requirements/build.txt",
            "requirements/operator.txt",
            "pyproject.toml",
            "LICENSE",
            "operator",
            "session_runtime/__init__.py",
            "session_runtime/wire.py",
        ),
        cold="1-2 minutes",
        warm="15 s",
    ),
    Image(
        "runtime",
        ("requirements/build.txt", "requirements/runtime.txt", "pyproject.toml", "LICENSE", "agent", "session_runtime"),
        cold="2-3 minutes",
        warm="15 s",
    ),
    Image(
        "local-model",
        (
            "requirements/build.txt",
            "requirements/local-model.txt",
            "requirements/local-model-weights.txt",
            "session_runtime/local_model/serve.py",
        ),
        cold="1 minute",
        warm="10 s",
    ),
)


@dataclass(frozen=True)
class Source:
    """A file of a build, read once: what is hashed is what is built, even while somebody edits the checkout."""

    path: str
    executable: bool
    content: bytes


def read_sources(root: Path, inputs: Iterable[str]) -> list[Source]:
    """The files behind `inputs`, folders walked, sorted by path; caches and symbolic links left out."""
    return sorted((_read(root, path) for name in inputs for path in _walk(root / name)), key=lambda source: source.path)


def _walk(path: Path) -> Iterator[Path]:
    if path.name in SKIPPED or path.suffix == ".pyc" or path.is_symlink():
        return
    if path.is_dir():
        for child in path.iterdir():
            yield from _walk(child)
    else:
        yield path


def _read(root: Path, path: Path) -> Source:
    return Source(path.relative_to(root).as_posix(), os.access(path, os.X_OK), path.read_bytes())


def content_hash(sources: Iterable[Source], base: str) -> str:
    """The tag: the same for the same files on the same base, regardless of git, clocks and file modes."""
    digest = hashlib.sha256(base.encode())
    for source in sorted(sources, key=lambda source: source.path):
        # Lengths, so that bytes moved from one file to the next make another hash.
        digest.update(f"\0{source.path}\0{source.executable:d}\0{len(source.content)}\0".encode())
        digest.update(source.content)
    return digest.hexdigest()[:HASH_LENGTH]


def choose_builder(wanted: str, docker_answers: bool) -> str:
    """`docker` where a daemon answers, else `buildah`, which needs none and can be installed."""
    if wanted != "auto":
        return wanted
    return "docker" if docker_answers else "buildah"


def choose_base(wanted: str, present: bool, reachable: bool) -> str:
    """The base to build on, a reference or `debootstrap`: the usual one when it is here or can be had.

    Asked once and then remembered: a registry that does not answer costs ten seconds, and a base that changes with the
    weather would change every tag.
    """
    if wanted != "auto":
        return wanted
    return DEFAULT_BASE if present or reachable else "debootstrap"


def pip_configuration(environ: Mapping[str, str], files: Mapping[str, str], ca: bool) -> str:
    """A pip.conf for the builder stage, from the host's environment and files.

    `files` are the options of the host's own pip.conf. Paths of the host mean nothing inside, so only addresses and
    numbers go along; `ca` says that the host's CA bundle is mounted.
    """
    options = {key: value for key, value in files.items() if key in CARRIED}
    options |= {key: environ["UV_" + name] for key, name in UV_NAMES.items() if environ.get("UV_" + name)}
    for key in CARRIED:
        name = "PIP_" + ("default-timeout" if key == "timeout" else key).upper().replace("-", "_")
        if environ.get(name):
            options[key] = environ[name]
    if ca:
        options["cert"] = "/run/ca.crt"
    # A value over several lines continues with an indent.
    lines = (f"{key} = {value.strip()}".replace("\n", "\n    ") for key, value in sorted(options.items()))
    return "\n".join(["[global]", *lines, ""])


CARRIED = ("index-url", "extra-index-url", "trusted-host", "timeout", "retries", "proxy")
UV_NAMES = {"index-url": "DEFAULT_INDEX", "extra-index-url": "INDEX"}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of `tools/images/build`."""
    names = [image.name for image in IMAGES]
    parser = argparse.ArgumentParser(
        prog="tools/images/build",
        description="Build the images agentsession/{" + ",".join(names) + "}.",
        epilog="Prints a line per image on stdout: NAME:TAG and the path of its docker-archive. The tag is a hash of what the "
        "image is made of; an image whose archive is there already is not built again. Archives, the base and buildah's "
        "storage are in $AGENTSESSION_CACHE_DIR (default ~/.cache/agentsession).",
        allow_abbrev=False,
    )
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="build this one (may be repeated)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="also put the archives there, as NAME.tar")
    parser.add_argument("--sizes", action="store_true", help="also print each image's size")
    parser.add_argument("--check", action="store_true", help="also run each image as uid 65532 on a read-only root")
    parser.add_argument(
        "--builder", choices=["auto", "docker", "buildah"], default="auto", help="default: docker if it answers"
    )
    parser.add_argument(
        "--base",
        default="auto",
        metavar="IMAGE",
        help=f"base image, or 'debootstrap' (default: {DEFAULT_BASE} where its registry can be reached, else debootstrap; "
        "the answer is remembered)",
    )
    parser.add_argument("--refresh-base", action="store_true", help="rebuild or pull the base, with today's security updates")
    return parser.parse_args(argv)


def selected(only: Sequence[str] | None) -> list[Image]:
    """The images that were asked for, in the order of building."""
    return [image for image in IMAGES if not only or image.name in only]
