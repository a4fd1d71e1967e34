"""The sandbox's stand-ins for Tiphys' ValidatingAdmissionPolicies on Workflows.

Invariants: only the launcher creates, only what the catalogue lists, only plain tokens, only for
the next 15 minutes, and nothing while a stop ConfigMap exists; the launcher's only update is
`shutdown: Stop`. A catalogue that cannot be read refuses. The sandbox's own machinery writes
without a user and is not asked. https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from tiphys.sandbox.argo_workflow import CONTROLLER
from tiphys.sandbox.store import AdmissionRequest, ApiError, Store

LAUNCHER = "system:serviceaccount:tiphys-system:tiphys-launcher"
ACTIONS_NAMESPACE = "tiphys-actions"
STOP_NAMESPACE = "tiphys-stop"
STOP_LABEL = "tiphys.io/stop"
CATALOGUE = ("tiphys-system", "tiphys-catalogue")
MAX_VALIDITY = timedelta(minutes=15)

_NAME = re.compile(r"tiphys-[a-z2-7]{40}")
_TEMPLATE = re.compile(r"[a-z0-9][a-z0-9-]*-v[0-9]+")
_PLAN = re.compile(r"[A-Za-z0-9_-]{1,16384}")
_TOKEN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?")
_INSTANCE_LABEL = "workflows.argoproj.io/controller-instanceid"

Json = dict[str, Any]


def install(store: Store) -> None:
    """Make the store refuse what the policies refuse."""

    def judge(request: AdmissionRequest) -> None:
        if request.kind != "Workflow" or not request.user:
            return
        if request.obj["metadata"].get("namespace") != ACTIONS_NAMESPACE:
            return
        if request.operation == "CREATE":
            _stop(store)
            _create(store, request)
        elif request.operation == "UPDATE" and request.user != CONTROLLER:
            _update(request)
        elif request.operation == "DELETE":
            _refuse("tiphys-workflows-delete", "Workflows are kept: they are the record")

    store.admission.append(judge)


def _refuse(policy: str, message: str) -> None:
    text = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {message}"
    raise ApiError(403, "Forbidden", text)


def _stop(store: Store) -> None:
    for item in store.list("ConfigMap", STOP_NAMESPACE, f"{STOP_LABEL}=true"):
        reason = item.get("data", {}).get("reason", "")
        said = f"stopped by ConfigMap {item['metadata']['name']}: {reason}"
        _refuse("tiphys-stop", said.removesuffix(": "))


def _create(store: Store, request: AdmissionRequest) -> None:
    workflow, meta = request.obj, request.obj["metadata"]
    policy = "tiphys-workflows-create"
    if request.user != LAUNCHER:
        _refuse(policy, "only the launcher may create")
    spec: Json = workflow.get("spec", {})
    if set(spec) - {"workflowTemplateRef", "arguments"}:
        _refuse(policy, "a Workflow may carry only workflowTemplateRef and arguments")
    if "status" in workflow:
        _refuse(policy, "status may not be supplied at creation")
    names = _listed(store, spec.get("workflowTemplateRef", {}))
    if names is None:
        _refuse(policy, "workflowTemplateRef must name a template in the catalogue")
        return
    if set(spec.get("arguments", {})) - {"parameters"}:
        _refuse(policy, "artifacts may not be supplied")
    given: list[Json] = spec.get("arguments", {}).get("parameters", [])
    if sorted(str(item.get("name")) for item in given) != sorted(names):
        _refuse(policy, "exactly the declared parameters, once each")
    if not all(_plain(item) for item in given):
        _refuse(policy, "parameter values are plain tokens")
    if not _metadata_is_ours(meta):
        _refuse(policy, "deterministic name tiphys-<plan digest>; only tiphys.io/ labels")
    not_after = [item["value"] for item in given if item["name"] == "notAfter"]
    if len(not_after) != 1 or not _soon(not_after[0]):
        _refuse(policy, "plan has expired or is valid for too long")


def _listed(store: Store, reference: Json) -> list[str] | None:
    """Give the parameter names that the catalogue declares; None: not in the catalogue."""
    catalogue = store.find("ConfigMap", *CATALOGUE)
    template = reference.get("name", "")
    if catalogue is None or set(reference) != {"name"} or not _TEMPLATE.fullmatch(template):
        return None
    listed: Json = catalogue.get("data", {})
    return listed[template].split(",") if template in listed else None


def _plain(item: Json) -> bool:
    value = item.get("value")
    if set(item) != {"name", "value"} or not isinstance(value, str):
        return False
    pattern = _PLAN if item["name"] == "plan" else _TOKEN
    return pattern.fullmatch(value) is not None


def _metadata_is_ours(meta: Json) -> bool:
    labels = meta.get("labels", {})
    return (
        "generateName" not in meta
        and _NAME.fullmatch(meta["name"]) is not None
        and not meta.get("finalizers")
        and not meta.get("ownerReferences")
        and all(
            key.startswith("tiphys.io/") or (key == _INSTANCE_LABEL and value == "tiphys")
            for key, value in labels.items()
        )
        and all(key.startswith("tiphys.io/") for key in meta.get("annotations", {}))
    )


def _soon(text: str) -> bool:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    if at.tzinfo is None:
        return False
    return timedelta(0) < at - datetime.now(UTC) <= MAX_VALIDITY


def _update(request: AdmissionRequest) -> None:
    """Let the launcher set `shutdown: Stop` and nothing else; nobody else anything."""
    policy = "tiphys-workflows-update"
    if request.user != LAUNCHER:
        _refuse(policy, "only launcher or controller may update")
    new, old = request.obj, request.old or {}
    wanted = {**old["spec"], "shutdown": "Stop"}
    kept = ("labels", "annotations", "finalizers", "ownerReferences")
    if (
        new["spec"] != wanted
        or new.get("status") != old.get("status")
        or any(new["metadata"].get(key) != old["metadata"].get(key) for key in kept)
    ):
        _refuse(policy, "the launcher may only set spec.shutdown: Stop")
