"""`tools/images/build`: from the checkout to archives that a cluster can load, doing only what changed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from images import check, host, plan, rootfs
from images.builders import Buildah, Builder, Docker

KEPT = 4
"""Archives kept of each image: the ones that a developer goes back and forth between."""

LOCAL_BASE = f"localhost/{plan.REPOSITORY}/base"


class Base:
    """What the images are built on, found out once and remembered in the cache."""

    def __init__(self, cache: Path, wanted: str, fresh: bool) -> None:
        self.cache = cache
        self.wanted = wanted
        key = hashlib.sha256(f"{wanted} {rootfs.version()}".encode()).hexdigest()[:8]
        self.note = cache / f"base-{key}.json"
        if fresh:
            self.note.unlink(missing_ok=True)
        self.fresh = fresh
        self.known: dict[str, str] = json.loads(self.note.read_text()) if self.note.exists() else {}

    def identity(self, builder: Builder) -> str:
        """What goes into the tags: the id of the base's content."""
        if not self.known:
            self._find(builder)
        return self.known["identity"]

    def reference(self, builder: Builder) -> str:
        """The base's name in the builder, which has it when this returns."""
        identity, reference = self.identity(builder), self.known["reference"]
        if builder.identity(reference) is None:  # another builder than the last time, or one that was cleaned
            if self.known["from"] == "debootstrap":
                builder.import_rootfs(rootfs.archive(self.cache, fresh=False), reference)
            else:
                builder.pull(reference)
                if builder.identity(reference) != identity:
                    host.say(f"{reference} has changed since the last build; --refresh-base takes note of it")
        return reference

    def _find(self, builder: Builder) -> None:
        present = builder.identity(plan.DEFAULT_BASE) is not None
        reachable = self.wanted == "auto" and not present and builder.reachable(plan.DEFAULT_BASE)
        choice = plan.choose_base(self.wanted, present, reachable)
        if choice == "debootstrap":
            if self.wanted == "auto":
                host.say(f"no registry answers for {plan.DEFAULT_BASE}: the base is made with debootstrap")
            tar = rootfs.archive(self.cache, self.fresh)
            with tar.open("rb") as file:
                identity = hashlib.file_digest(file, "sha256").hexdigest()
            self.known = {"from": choice, "reference": f"{LOCAL_BASE}:{identity[:12]}", "identity": identity}
        else:
            if self.fresh or builder.identity(choice) is None:
                with host.step(f"pulling {choice}", "20 s"):
                    builder.pull(choice)
            self.known = {"from": "registry", "reference": choice, "identity": str(builder.identity(choice))}
        self.note.write_text(json.dumps(self.known))


class Lazy:
    """A builder made when something is to be built: a run with nothing to do starts no program at all."""

    def __init__(self, cache: Path, wanted: str) -> None:
        self.cache = cache
        self.wanted = wanted
        self.made: Builder | None = None

    def get(self) -> Builder:
        """The builder; installs buildah when it comes to that."""
        if self.made is None:
            docker = self.wanted != "buildah" and Docker.answers()
            if self.wanted == "docker" and not docker:
                raise host.Refusal("docker does not answer: start its daemon, or leave --builder out to use buildah")
            self.made = Docker(self.cache) if plan.choose_builder(self.wanted, docker) == "docker" else Buildah(self.cache)
        return self.made


def build(image: plan.Image, cache: Path, lazy: Lazy, base: Base) -> tuple[str, Path]:
    """The image's NAME:TAG and its archive, built if it is not there."""
    sources = plan.read_sources(plan.ROOT, (plan.CONTAINERFILE, *image.inputs))
    identity = base.known["identity"] if base.known else base.identity(lazy.get())
    name = f"{image.repository()}:{plan.content_hash(sources, identity)}"
    archives = cache / "archives" / image.name
    archives.mkdir(parents=True, exist_ok=True)
    archive = archives / f"{name.rpartition(':')[2]}.tar"
    if archive.exists():
        os.utime(archive)
        host.say(f"{name}: there already")
        return name, archive
    builder, first = lazy.get(), not any(archives.iterdir())
    reference = f"docker.io/{name}"  # the full name behind a pod's `agentsession/...`, as a container runtime reads it
    parent = base.reference(builder)
    log = cache / f"{image.name}.log"
    log.unlink(missing_ok=True)
    with host.step(f"building {name}", image.cold if first else f"{image.warm}, {image.cold} with changed dependencies"):
        with tempfile.TemporaryDirectory(prefix="context-", dir=cache) as context:
            host.write_context(Path(context), sources)
            builder.build(Path(context), image.name, parent, reference, log)
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        builder.save(reference, partial)
        partial.rename(archive)
    for old in sorted(archives.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink()
        old.with_suffix(".json").unlink(missing_ok=True)
    return name, archive


class _Counter:
    """A file that only counts."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        pass


def sizes(archive: Path) -> tuple[int, int]:
    """Bytes of an image as a registry would send it (gzip) and unpacked. Kept beside the archive: compressing takes a while."""
    note = archive.with_suffix(".json")
    if note.exists():
        packed, unpacked = json.loads(note.read_text())
        return packed, unpacked
    counter, unpacked = _Counter(), 0
    with host.step(f"measuring {archive.parent.name}", "10 s"), tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        for layer in dict.fromkeys(json.load(manifest)[0]["Layers"]):
            data: IO[bytes] | None = tar.extractfile(layer)
            assert data is not None
            unpacked += tar.getmember(layer).size
            with gzip.GzipFile(fileobj=counter, mode="wb", compresslevel=6) as packer:
                shutil.copyfileobj(data, packer, 1 << 20)
    note.write_text(json.dumps([counter.bytes, unpacked]))
    return counter.bytes, unpacked


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    args = plan.arguments(argv)
    try:
        cache = host.cache()
        with host.locked(cache):
            lazy, base = Lazy(cache, args.builder), Base(cache, args.base, args.refresh_base)
            for image in plan.selected(args.only):
                name, archive = build(image, cache, lazy, base)
                if args.save:
                    args.save.mkdir(parents=True, exist_ok=True)
                    archive = Path(shutil.copy(archive, args.save / f"{image.name}.tar")).absolute()
                print(name, archive, flush=True)
                if args.sizes:
                    packed, unpacked = sizes(archive)
                    print(f"  {packed / 1e6:.0f} MB to pull, {unpacked / 1e6:.0f} MB unpacked", flush=True)
                if args.check:
                    check.check(image.name, archive)
    except host.Refusal as refusal:
        print(f"images: {refusal}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
