"""A real API server takes everything the chart renders, strictly; nothing is stored."""

import json
import secrets
from collections.abc import Generator
from typing import Any

import pytest
from charts import MODES, Render, one

from tools.cluster.report import Trouble
from tools.cluster.target import Target

ELSEWHERE = {"Pod", "ServiceMonitor", "PrometheusRule"}
"""Pods need their account to exist; the operator's schemas are held by test_monitoring.py."""


@pytest.fixture(scope="module")
def place(cluster: Target) -> Generator[str]:
    """A namespace that lets no pod in that is not restricted."""
    name = f"chart-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": name, "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    cluster.kubectl("-n", name, "wait", "--for=create", "serviceaccount/default")
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", "--wait=false", name)


def moved(thing: dict[str, Any], place: str) -> dict[str, Any]:
    """Put an object where it meets no other: cluster-wide ones get a name of their own."""
    meta = dict(thing["metadata"])
    if "namespace" in meta:
        meta["namespace"] = place
    else:
        meta["name"] = f"{place}-{meta['name']}"
    found = {**thing, "metadata": meta}
    if thing["kind"] == "ValidatingAdmissionPolicyBinding":
        spec = thing["spec"]
        found["spec"] = {**spec, "policyName": f"{place}-{spec['policyName']}"}
    return found


@pytest.mark.parametrize("mode", MODES)
def test_the_api_server_takes_every_object(
    cluster: Target, render: Render, place: str, mode: str
) -> None:
    given = [thing for thing in render(mode) if thing["kind"] not in ELSEWHERE]
    taken = dry_run(cluster, *(moved(thing, place) for thing in given))
    assert taken == len(given) > 60


def dry_run(cluster: Target, *things: dict[str, Any]) -> int:
    """Apply without storing and count; unknown fields and bad CEL are refused."""
    argv = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    text = "\n---\n".join(json.dumps(thing) for thing in things)
    return len(cluster.kubectl(*argv, stdin=text, seconds=120).splitlines())


def test_that_is_a_test(cluster: Target, render: Render, place: str) -> None:
    objects = render("split")
    deployment = moved(one(objects, "Deployment", "tiphys-agents"), place)
    deployment["spec"] = {**deployment["spec"], "tpyo": 1}
    policy = moved(one(objects, "ValidatingAdmissionPolicy", "tiphys-pods"), place)
    rules = [{"expression": "object.spec.(", "message": "no CEL"}]
    policy["spec"] = {**policy["spec"], "validations": rules}
    template = moved(one(objects, "WorkflowTemplate", "restart-pod-v1"), place)
    template["spec"] = {**template["spec"], "tpyo": 1}
    for broken in (deployment, policy, template):
        with pytest.raises(Trouble):
            dry_run(cluster, broken)


@pytest.mark.parametrize("mode", ["split", "single"])
def test_every_pod_of_ours_is_restricted(
    cluster: Target, render: Render, place: str, mode: str
) -> None:
    pods = [as_pod(thing, place) for thing in render(mode) if thing["kind"] in STARTERS]
    assert dry_run(cluster, *pods) == len(pods)
    for pod in pods:
        pod["spec"]["hostNetwork"] = True
    with pytest.raises(Trouble) as refused:
        dry_run(cluster, *pods)
    assert str(refused.value).count("violates PodSecurity") == len(pods)


STARTERS = {"Deployment", "StatefulSet", "Job", "Pod"}


def as_pod(thing: dict[str, Any], place: str) -> dict[str, Any]:
    """Make the pod that would be started; what is not there yet is not the point here."""
    spec = thing["spec"] if thing["kind"] == "Pod" else thing["spec"]["template"]["spec"]
    spec = {**spec, "serviceAccountName": "default"}
    spec.pop("priorityClassName", None)
    known = {volume["name"] for volume in spec.get("volumes", [])}
    mounted = {m["name"] for c in spec["containers"] for m in c.get("volumeMounts", [])}
    claims = [{"name": name, "emptyDir": {}} for name in mounted - known]
    spec["volumes"] = [*spec.get("volumes", []), *claims]
    meta = {"name": thing["metadata"]["name"], "namespace": place}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
