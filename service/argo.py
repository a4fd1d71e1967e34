"""Workflows as the launcher may touch them: create, get and stop, in one namespace.

Invariant: a body carries only a catalogued template's name and its declared parameters, which is
all that admission accepts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from tiphys.policies.model import Object
from tiphys.service.errors import ArgoUnavailableError, WorkflowRefusedError
from tiphys.service.kubernetes_api import TIMEOUT, UNREACHABLE, explain

GROUP, VERSION, PLURAL = "argoproj.io", "v1alpha1", "workflows"
INSTANCE = "workflows.argoproj.io/controller-instanceid"
_TRANSIENT = {401, 408, 429, 500, 502, 503, 504}
"""Answers that asking again can change; 401 among them, because tokens are rotated."""


@dataclass(frozen=True)
class Submission:
    """Everything that a Workflow of ours consists of."""

    name: str
    template: str
    parameters: Mapping[str, str]
    incident: str

    def body(self, namespace: str) -> dict[str, Any]:
        """Give the object that is created; equal submissions have equal bodies."""
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Workflow",
            "metadata": {
                "name": self.name,
                "namespace": namespace,
                "labels": {"tiphys.io/incident": self.incident, INSTANCE: "tiphys"},
            },
            "spec": {
                "workflowTemplateRef": {"name": self.template},
                "arguments": {
                    "parameters": [{"name": n, "value": v} for n, v in self.parameters.items()]
                },
            },
        }


class Argo:
    """The launcher's hands."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._objects = client.CustomObjectsApi(api)
        self.namespace = namespace

    async def create(self, submission: Submission) -> bool:
        """Create the Workflow, or adopt the one that this very submission created before.

        Returns True when it was created now. Raises `WorkflowRefusedError` when admission says no
        or another Workflow has the name, `ArgoUnavailableError` when asking again can help.
        """
        body = submission.body(self.namespace)
        try:
            await self._objects.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, body, _request_timeout=TIMEOUT
            )
        except ApiException as error:
            if error.status == 409:
                if not await self.exists(submission):
                    why = f"{submission.name} existed and is gone again"
                    raise ArgoUnavailableError(why) from error
                return False
            if error.status in _TRANSIENT:
                raise ArgoUnavailableError(explain(error)) from error
            raise WorkflowRefusedError(explain(error)) from error
        except UNREACHABLE as error:
            raise ArgoUnavailableError(explain(error)) from error
        return True

    async def exists(self, submission: Submission) -> bool:
        """Tell whether this very submission was created before.

        Raises `WorkflowRefusedError` when another Workflow has the name, `ArgoUnavailableError`.
        """
        found = await self.get(submission.name)
        if found is None:
            return False
        spec = cast("dict[str, Any]", found.get("spec") or {})
        ours = submission.body(self.namespace)["spec"]
        if {name: spec.get(name) for name in ours} != ours:
            raise WorkflowRefusedError(f"another Workflow is named {submission.name}")
        return True

    async def get(self, name: str) -> Object | None:
        """Read a Workflow; None when there is none. Raises `ArgoUnavailableError`."""
        try:
            found = await self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=TIMEOUT
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise ArgoUnavailableError(explain(error)) from error
        except UNREACHABLE as error:
            raise ArgoUnavailableError(explain(error)) from error
        return cast(Object, found)

    async def stop(self, name: str) -> None:
        """Tell a running Workflow to stop; its exit handler still rolls back."""
        try:
            await self._objects.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                name,
                {"spec": {"shutdown": "Stop"}},
                _request_timeout=TIMEOUT,
                _content_type="application/merge-patch+json",
            )
        except (ApiException, *UNREACHABLE) as error:
            raise ArgoUnavailableError(explain(error)) from error
