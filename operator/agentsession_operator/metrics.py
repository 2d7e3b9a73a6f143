"""Prometheus metrics of the operator. No label names a session, a pod or a user: their number has no bound."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

API_REQUESTS = Counter(
    "agentsession_api_requests_total",
    "Requests to the API server. Code 0 means that no answer came.",
    ["method", "resource", "code"],
)
SLOTS_USED = Gauge("agentsession_slots_used", "Slots in use.")
SESSIONS_WAITING = Gauge("agentsession_sessions_waiting", "Sessions waiting for a slot.")
ADMISSIONS = Counter("agentsession_admissions_total", "Admitted sessions.")
ADMISSION_SECONDS = Histogram(
    "agentsession_admission_pass_seconds",
    "Time to plan one admission pass, without its writes.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0),
)
RECONCILES = Counter("agentsession_reconciles_total", "Reconciliations of sessions by result.", ["result"])
QUEUE_LENGTH = Gauge("agentsession_work_queue_length", "Sessions waiting to be reconciled.")
REPORTS = Counter("agentsession_reports_total", "Reports of session pods by result.", ["result"])
WATCH_EVENTS = Counter("agentsession_watch_events_total", "Watch events by resource.", ["resource"])
WATCH_CORRECTIONS = Counter(
    "agentsession_watch_corrections_total", "Objects that a relist found missing, stale or left over.", ["resource"]
)
LEADING = Gauge("agentsession_leading", "1 while this operator holds the lease.")
FORGED_PODS = Counter("agentsession_forged_pods_total", "Pods with our label that the operator did not create; ignored.")
CREATIONS = Counter("agentsession_pod_creations_total", "Pod creations by result.", ["result"])
UNREADABLE = Counter(
    "agentsession_unreadable_objects_total", "Objects that could not be read or decided, by resource.", ["resource"]
)
LEDGER_MISTAKES = Counter(
    "agentsession_ledger_mistakes_total",
    "Differences that a full count found in the ledger. Each is a mistake of the operator.",
)
