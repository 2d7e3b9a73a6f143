"""Which tools are offered, by name."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class ToolSelection:
    """Globs over tool names: a tool is offered when `allow` matches its name and `deny` does not."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()

    def offers(self, name: str) -> bool:
        return any(fnmatchcase(name, glob) for glob in self.allow) and not any(fnmatchcase(name, glob) for glob in self.deny)
