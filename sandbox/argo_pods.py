"""The pods of a Workflow as Argo's controller makes them, and their ends in its words. Pure."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tiphys.sandbox.argo_terms import pod_name, seconds, substitute
from tiphys.sandbox.step_pods import TEMPLATE_ANNOTATION, WORKFLOW_LABEL

NODE_NAME_ANNOTATION = "workflows.argoproj.io/node-name"
_FIELDS = ("affinity", "nodeSelector", "tolerations", "volumes")
"""What a template, or else the whole Workflow, says of its pods; parameters may stand in it."""

Json = dict[str, Any]


def pod_of(
    workflow: Json, spec: Json, template: Json, node: str, deadline: datetime | None
) -> Json:
    """Give the pod of a node; `deadline` is when the Workflow's running part must have ended."""
    meta = workflow["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(meta["name"], template["name"], node),
            "namespace": meta["namespace"],
            "labels": {
                WORKFLOW_LABEL: meta["name"],
                "workflows.argoproj.io/completed": "false",
            },
            "annotations": {
                NODE_NAME_ANNOTATION: node,
                TEMPLATE_ANNOTATION: json.dumps(template),
            },
            "ownerReferences": [
                {
                    "apiVersion": "argoproj.io/v1alpha1",
                    "kind": "Workflow",
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": _spec(spec, template, deadline),
        "status": {"phase": "Pending"},
    }


def _spec(spec: Json, template: Json, deadline: datetime | None) -> Json:
    single = template.get("container")
    listed = template.get("containerSet", {}).get("containers", [])
    containers = [{**single, "name": "main"}] if single else listed
    account = template.get("serviceAccountName") or spec.get("serviceAccountName", "default")
    made: Json = {
        "serviceAccountName": account,
        "restartPolicy": "Never",
        "containers": [_container(template, item) for item in containers],
        **{key: said for key in _FIELDS if (said := template.get(key, spec.get(key)))},
    }
    made = substitute(made, _parameters(spec))
    limits = [seconds(template.get("activeDeadlineSeconds"))]
    if deadline is not None:
        limits.append((deadline - datetime.now(UTC)).total_seconds())
    known = [limit for limit in limits if limit is not None]
    return {**made, "activeDeadlineSeconds": max(1, round(min(known)))} if known else made


def _parameters(spec: Json) -> dict[str, str]:
    """Give the Workflow's parameters as placeholders name them."""
    given: list[Json] = spec.get("arguments", {}).get("parameters") or []
    return {f"workflow.parameters.{one['name']}": str(one.get("value", "")) for one in given}


def _container(template: Json, container: Json) -> Json:
    mounts: list[Json] = template.get("containerSet", {}).get("volumeMounts") or []
    made = {key: value for key, value in container.items() if key != "dependencies"}
    mounts = [*mounts, *(container.get("volumeMounts") or [])]
    return {**made, "volumeMounts": mounts} if mounts else made


def told(terminated: Mapping[str, Any]) -> str:
    """Word a container's end as Argo does; a success says nothing."""
    code, text = terminated["exitCode"], terminated.get("message", "")
    if code == 0:
        return ""
    return f"{terminated['reason']} (exit code {code}): {text}".removesuffix(": ")


def failure(pod: Json) -> str:
    """Word why a pod failed, by the first of its containers that did."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        ended = status["state"].get("terminated")
        if ended and ended["exitCode"] != 0:
            return f"{status['name']}: {told(ended)}"
    return ""
