"""A session's metrics for Prometheus: numbers only, no text of a user, a model or a credential."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from session_runtime.session.events import Draft
from session_runtime.session.snapshot import Snapshot


class Metrics:
    """This process's metrics. Counts of events restart at zero with each process, as Prometheus expects."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.subscribers = Gauge("agentsession_event_subscribers", "Clients that follow the events.", registry=self.registry)
        self._events = Counter(
            "agentsession_events", "Events written, by type, since the process started.", ["type"], registry=self.registry
        )
        self._lag = Gauge(
            "agentsession_event_lag_seconds", "From an event to its being durable, for the latest.", registry=self.registry
        )
        self._errors = Counter(
            "agentsession_errors",
            "Turns that ended in an error, by kind, since the process started.",
            ["kind"],
            registry=self.registry,
        )

    def observe(self, drafts: Sequence[Draft], now: float) -> None:
        """Count events that have become durable at `now` (seconds since the epoch)."""
        for draft in drafts:
            self._events.labels(draft.type).inc()
            if draft.type == "error":
                self._errors.labels(str(draft.data.get("kind", "unknown"))).inc()
        if drafts:
            self._lag.set(max(0.0, now - drafts[-1].time.timestamp()))

    def text(self, snapshot: Snapshot) -> bytes:
        """The exposition, in Prometheus's text format."""
        self.registry.register(session := _SessionCollector(snapshot))
        try:
            return generate_latest(self.registry)
        finally:
            self.registry.unregister(session)


class _SessionCollector(Collector):
    """The state of a session at one moment."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        now, used = self._snapshot, self._snapshot.usage
        waiting = len(now.pending) + len(now.questions)
        yield CounterMetricFamily("agentsession_turns", "Inputs and approvals worked on.", now.ended_turns)
        yield CounterMetricFamily("agentsession_input_tokens", "Tokens sent to the model.", used.input_tokens)
        yield CounterMetricFamily("agentsession_output_tokens", "Tokens from the model.", used.output_tokens)
        yield CounterMetricFamily("agentsession_cost_usd", "Price of model and tool calls in US dollars.", used.spent_usd)
        yield CounterMetricFamily("agentsession_model_calls", "Calls of the model.", used.llm_calls)
        yield CounterMetricFamily("agentsession_tool_calls", "Calls of tools.", used.tool_calls)
        yield GaugeMetricFamily("agentsession_queued_submissions", "Submissions that wait.", now.queued)
        yield GaugeMetricFamily("agentsession_pending_approvals", "Calls that wait for a person.", waiting)
        yield GaugeMetricFamily("agentsession_tool_problems", "Servers of tools that do not work well.", len(now.problems))
        yield GaugeMetricFamily("agentsession_messages", "Messages in the conversation.", len(now.messages))
        yield GaugeMetricFamily("agentsession_last_event", "Number of the latest event.", now.last_seq)
        yield GaugeMetricFamily("agentsession_processing", "1 while a submission is worked on.", int(now.is_processing))
