"""Prometheus metrics of the operator. Labels never carry a session, a pod or a user: their number has no bound."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

API_REQUESTS = Counter(
    "agentsession_api_requests_total",
    "Requests to the API server; code 0 is no answer.",
    ["method", "resource", "code"],
)
SLOTS_USED = Gauge("agentsession_slots_used", "Slots that are held.")
SESSIONS_WAITING = Gauge("agentsession_sessions_waiting", "Sessions that wait for a slot.")
ADMISSIONS = Counter("agentsession_admissions_total", "Sessions that got a slot.")
ADMISSION_SECONDS = Histogram("agentsession_admission_pass_seconds", "Time to plan one admission pass, writes left out.")
RECONCILES = Counter("agentsession_reconciles_total", "Reconciliations of a session by result.", ["result"])
QUEUE_LENGTH = Gauge("agentsession_work_queue_length", "Sessions that wait to be reconciled.")
REPORTS = Counter("agentsession_reports_total", "Reports of session pods by result.", ["result"])
WATCH_EVENTS = Counter("agentsession_watch_events_total", "Watch events by resource.", ["resource"])
WATCH_CORRECTIONS = Counter(
    "agentsession_watch_corrections_total", "Objects that a relist found missing, stale or left over.", ["resource"]
)
LEADING = Gauge("agentsession_leading", "1 while this operator holds the lease.")
