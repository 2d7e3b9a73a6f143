"""The SessionQuota that the chart installs."""

from __future__ import annotations

from support.api import GROUP, JSON, Api


class Quota:
    """Sets and reads it."""

    path = f"{GROUP}/sessionquotas/default"

    def __init__(self, api: Api) -> None:
        self._api = api

    def set(self, sessions: int, per_user: int) -> None:
        self._api.patch(self.path, {"spec": {"maxSessions": sessions, "maxSessionsPerUser": per_user}})

    def read(self) -> JSON:
        return self._api.get(self.path)
