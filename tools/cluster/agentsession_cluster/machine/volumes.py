"""The provisioner behind the default StorageClass: one directory of the node for each claim.

kube-controller-manager's own host-path provisioner makes directories that only root can write, below /tmp; pods
here run as other users. These are `local` volumes, so a pod's fsGroup applies as it does on real storage.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from agentsession_cluster.api import Api, ApiError, Json
from agentsession_cluster.objects import PROVISIONER

_CLAIMS = "/api/v1/persistentvolumeclaims"
_VOLUMES = "/api/v1/persistentvolumes"
_ROUND_SECONDS = 30  # one watch lasts so long; then everything is listed again


def volume_for(claim: Json, node_name: str, directory: Path) -> Json | None:
    """The volume that a pending claim of ours needs, or None when it needs none from us."""
    metadata, spec = claim["metadata"], claim["spec"]
    ours = metadata.get("annotations", {}).get("volume.kubernetes.io/storage-provisioner") == PROVISIONER
    if not ours or spec.get("volumeName") or metadata.get("deletionTimestamp"):
        return None
    name = f"pvc-{metadata['uid']}"  # the name follows from the claim, so a second attempt makes no second volume
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec["storageClassName"],
            "local": {"path": str(directory / name)},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node_name]}]}
                    ]
                }
            },
        },
    }


def to_delete(volume: Json) -> bool:
    """Whether a volume is ours and its claim is gone."""
    annotations = volume["metadata"].get("annotations", {})
    return bool(
        annotations.get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        and volume.get("status", {}).get("phase") == "Released"
        and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    )


class Provisioner:
    """Makes volumes for claims and removes those whose claims are gone."""

    def __init__(self, connect: Any, node_name: str, directory: Path) -> None:
        self._connect = connect
        self._api: Api = connect()
        self._node_name = node_name
        self._directory = directory

    def run(self) -> None:
        """Works until the process is ended; an error is logged and the next round starts over."""
        while True:
            try:
                self._round()
            except (OSError, ApiError, ValueError) as error:
                print(f"starting over after: {error}", file=sys.stderr, flush=True)
                time.sleep(0.5)  # the API server may be restarting; every round re-lists

    def _round(self) -> None:
        listed = self._api.request("GET", _CLAIMS)
        for claim in listed["items"]:
            self._provision(claim)
        for volume in self._api.request("GET", _VOLUMES)["items"]:
            self._delete(volume)
        version = listed["metadata"]["resourceVersion"]
        watcher: Api = self._connect()
        try:
            query = f"?watch=1&resourceVersion={version}&timeoutSeconds={_ROUND_SECONDS}"
            for event in watcher.watch(_CLAIMS + query):
                if event["type"] == "ERROR":
                    return
                if event["type"] == "DELETED":
                    self._delete_for(event["object"])
                else:
                    self._provision(event["object"])
        finally:
            watcher.close()

    def _provision(self, claim: Json) -> None:
        volume = volume_for(claim, self._node_name, self._directory)
        if volume is None:
            return
        path = Path(volume["spec"]["local"]["path"])
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)  # for pods of any user without an fsGroup
        try:
            self._api.request("POST", _VOLUMES, volume)
        except ApiError as error:
            if error.status != 409:
                raise

    def _delete_for(self, claim: Json) -> None:
        """A deleted claim's volume is released a moment later; the rounds find it if it takes longer."""
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                volume = self._api.request("GET", f"{_VOLUMES}/pvc-{claim['metadata']['uid']}")
            except ApiError:
                return
            if self._delete(volume):
                return
            time.sleep(0.1)

    def _delete(self, volume: Json) -> bool:
        if not to_delete(volume):
            return False
        self._api.request("DELETE", f"{_VOLUMES}/{volume['metadata']['name']}")
        shutil.rmtree(self._directory / volume["metadata"]["name"], ignore_errors=True)
        return True
