"""The one switch: a ConfigMap in the stop namespace that the API server itself obeys.

Invariant: this process can engage it and read it, never release it; only a human's own
credentials delete the ConfigMap.
"""

from datetime import datetime

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from tiphys.policies.model import StopFacts
from tiphys.service.errors import ArgoUnavailableError
from tiphys.service.kubernetes_api import TIMEOUT, UNREACHABLE, explain

LABEL = "tiphys.io/stop"
"""Its presence counts, whatever its value, here as in admission's policy `stop`."""


class StopSwitch:
    """Reads with the launcher's credentials, engages with the gateway's."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._core = client.CoreV1Api(api)
        self._namespace = namespace

    async def read(self) -> StopFacts | None:
        """Tell whether it is engaged; None when nobody can say, which counts as engaged."""
        try:
            found = await self._core.list_namespaced_config_map(
                self._namespace, label_selector=LABEL, _request_timeout=TIMEOUT
            )
        except (ApiException, ValueError, *UNREACHABLE):
            return None
        # One that is being deleted counts until it is gone: admission still sees it.
        items = found.items or []
        reasons = [(item.data or {}).get("reason") or "no reason given" for item in items]
        return StopFacts(engaged=bool(items), reason="; ".join(dict.fromkeys(reasons)))

    async def engage(self, *, by: str, reason: str, now: datetime) -> str:
        """Create the ConfigMap and return its name; raises `ArgoUnavailableError`."""
        name = f"stop-{now:%Y%m%d-%H%M%S-%f}"
        body = client.V1ConfigMap(
            metadata=client.V1ObjectMeta(name=name, labels={LABEL: "true"}),
            data={"reason": reason, "by": by},
        )
        try:
            await self._core.create_namespaced_config_map(
                self._namespace, body, _request_timeout=TIMEOUT
            )
        except (ApiException, *UNREACHABLE) as error:
            raise ArgoUnavailableError(explain(error)) from error
        return name

    async def release(self) -> list[str]:
        """Delete every stop ConfigMap: for `tiphys resume`, with a human's own credentials."""
        try:
            found = await self._core.list_namespaced_config_map(
                self._namespace, label_selector=LABEL, _request_timeout=TIMEOUT
            )
            names = [str(item.metadata.name) for item in found.items or [] if item.metadata]
            for name in names:
                await self._core.delete_namespaced_config_map(
                    name, self._namespace, _request_timeout=TIMEOUT
                )
        except (ApiException, *UNREACHABLE) as error:
            raise ArgoUnavailableError(explain(error)) from error
        return names
