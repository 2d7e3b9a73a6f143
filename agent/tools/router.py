"""Offers tools to the model and runs its calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, Self

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from agent.question import Question, QuestionAnswer
from agent.tools.selection import ToolSelection
from agent.tools.tool import Ask, Tool, ToolError, ToolResult, asking, cut_output, nobody

logger = logging.getLogger(__name__)


class ToolSource(Protocol):
    """Somewhere else that tools come from, which may change and may be away: an MCP server."""

    @property
    def tools(self) -> tuple[Tool, ...]: ...

    @property
    def problem(self) -> str | None:
        """What is wrong with it, for a person; None when all is well."""
        ...

    @property
    def ready(self) -> bool:
        """Whether its tools have been known, if only once."""
        ...

    on_change: Callable[[], None]
    """To be called when `tools`, `problem` or `ready` have changed."""

    async def open(self) -> None:
        """Get ready; a failure is a `problem`, not an exception."""
        ...

    async def close(self) -> None: ...


class ToolRouter:
    """The tools of one agent. Enter it before use: `async with ToolRouter(tools) as router`.

    A tool is offered when every selection offers it. A tool of a source never takes the place of another one.
    """

    def __init__(
        self,
        tools: Iterable[Tool] = (),
        *,
        sources: Iterable[ToolSource] = (),
        selections: Iterable[ToolSelection] = (),
    ) -> None:
        self._sources = tuple(sources)
        self._selections = tuple(selections)
        self._changes = asyncio.Event()
        for source in self._sources:
            source.on_change = self._changes.set
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise ValueError(f"two tools are named {tool.name}")
            if self._offers(tool.name):
                self._tools[tool.name] = tool

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(source.open() for source in self._sources))
        except BaseException:  # cancelled: nobody will leave what was never entered
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await asyncio.gather(*(source.close() for source in self._sources))

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that are offered now."""
        offered = dict(self._tools)
        for source in self._sources:
            for tool in source.tools:
                if self._offers(tool.name):
                    offered.setdefault(tool.name, tool)
        return tuple(offered.values())

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the sources, in words."""
        return tuple(source.problem for source in self._sources if source.problem is not None)

    async def changed(self) -> None:
        """Wait until a source has changed since the last time."""
        await self._changes.wait()
        self._changes.clear()

    async def wait_for_sources(self, seconds: float) -> None:
        """Wait until each source's tools are known, but not longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(source.ready for source in self._sources):
                    await self.changed()

    def get(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)

    async def call(self, name: str, arguments: dict[str, Any], ask: Ask = nobody) -> ToolResult:
        """Run one call, which may `ask` a person. Any error in it is its result; only a cancellation gets out.

        The output comes whole: the loop cuts it, because secrets must be masked first.
        """
        tool = self.get(name)
        if tool is None:
            names = ", ".join(tool.name for tool in self.tools) or "none"
            return ToolResult(f"There is no tool named {name!r}. There are: {names}.", False)
        problem = argument_problem(tool, arguments)
        if problem is not None:
            return ToolResult(problem, False)
        try:
            async with asyncio.timeout(tool.timeout) as deadline:
                before = asking.set(_off_the_clock(ask, deadline))
                try:
                    result = await tool.call(arguments)
                finally:
                    asking.reset(before)
            return result if isinstance(result, ToolResult) else ToolResult(result)
        except ToolError as error:
            return ToolResult(str(error), False)
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                return ToolResult(f"{name} did not finish within {tool.timeout:g} s.", False)
            logger.exception("tool %s failed", name)
            return ToolResult(f"{name} failed: {type(error).__name__}: {error}", False)

    def _offers(self, name: str) -> bool:
        return all(selection.offers(name) for selection in self._selections)


def _off_the_clock(ask: Ask, deadline: asyncio.Timeout) -> Ask:
    """The same, with the deadline put off for as long as a person is asked: it measures the tool."""
    loop = asyncio.get_running_loop()
    waiting, left = 0, 0.0

    async def asked(question: Question) -> QuestionAnswer:
        nonlocal waiting, left
        if not waiting:
            left = (deadline.when() or loop.time()) - loop.time()
        waiting += 1
        try:
            _reschedule(deadline, None)
            return await ask(question)
        finally:
            waiting -= 1
            if not waiting:
                _reschedule(deadline, loop.time() + left)

    return asked


def _reschedule(deadline: asyncio.Timeout, when: float | None) -> None:
    with contextlib.suppress(RuntimeError):  # the call is over
        deadline.reschedule(when)


def argument_problem(tool: Tool, arguments: dict[str, Any]) -> str | None:
    """What is wrong with the arguments, worded so that the model can fix it; None when nothing is."""
    # The empty registry: without one, a `$ref` of a server would have us fetch any address that it names.
    validator = Draft202012Validator(dict(tool.parameters), registry=Registry())
    try:
        errors = sorted(validator.iter_errors(arguments), key=lambda e: e.json_path)
    except (Unresolvable, RecursionError):
        return None  # a schema that cannot be followed: its tool checks the arguments itself
    if not errors:
        return None
    problems = "; ".join(f"{error.json_path}: {cut_output(error.message, 400)}" for error in errors[:5])
    return f"The arguments do not fit {tool.name}: {problems}"
