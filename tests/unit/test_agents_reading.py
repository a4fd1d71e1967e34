"""What the agents read out of objects, series and expressions."""
# ruff: noqa: ARG002 - the ports' signatures

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from promql_parser import VectorSelector, parse

from tiphys.agents.analysis import questions
from tiphys.agents.charting import downsampled
from tiphys.agents.gather import PlaceUnknownError, fill, places
from tiphys.agents.notebook import MAX_ITEMS, MAX_STRING, bounded, make_evidence
from tiphys.agents.on_call import expression_in_link, rule_of
from tiphys.agents.pod_facts import Trouble, gpus_of, pod_facts, pods_facts, trouble_of
from tiphys.agents.ports import AlertRule, Series
from tiphys.agents.promql import longest_range, looks_back, quoted, same_series, selector
from tiphys.agents.resolver import Link, names_a_pod
from tiphys.agents.state import merged
from tiphys.agents.target_facts import (
    Sight,
    ended_pods,
    field_owner,
    gpu_hours,
    long_job,
    open_mark,
)
from tiphys.agents.workload_facts import rollout_facts
from tiphys.policies.model import Alert, Change, Object, Owner, Source, Target
from tiphys.policies.plan import canonical

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def ago(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat()


# --- PromQL -------------------------------------------------------------------------------------


@given(st.text(max_size=60) | st.text(alphabet='"\\\n{}=a', max_size=12))
def test_no_value_leaves_its_quotes(value: str) -> None:
    parsed = parse(selector("up", {"pod": value}))
    assert isinstance(parsed, VectorSelector)
    assert [m.name for m in parsed.matchers.matchers] == ["pod"]
    assert parsed.matchers.matchers[0].value == value


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("up == 0", 0),
        ("rate(x[5m]) > 1 and y", 300),
        ("max_over_time(x[3s]) >= 1", 3),
        ("rate(x[5m] offset 1h)", 3900),
        ("avg_over_time(rate(x[2m])[30m:1m]) > 0", 1920),
    ],
)
def test_the_longest_range(expression: str, seconds: float) -> None:
    assert longest_range(expression) == seconds


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("up == 0", 0),
        ("slow:p95 > 1", 300),
        ("rate(x[10m]) > 1 and slow:p95 > 1", 900),
        ("slower:p95 > 1", 360),
        ("round:a > 1", 60),
        ("twice > 1", 120),
    ],
)
def test_recording_rules_look_back_for_their_readers(expression: str, seconds: float) -> None:
    recorded = {
        "slow:p95": ["histogram_quantile(0.95, rate(x[5m]))"],
        "slower:p95": ["max_over_time(slow:p95[1m])"],
        "round:a": ["rate(y[1m]) + round:a"],
        "twice": ["rate(y[1m])", "rate(y[2m])"],
    }
    assert looks_back(expression, recorded) == seconds


def test_an_alert_belongs_to_the_series_that_made_it() -> None:
    alert = {"alertname": "A", "severity": "warning", "cluster": "c", "namespace": "n", "pod": "p"}
    assert same_series({"__name__": "x", "namespace": "n", "pod": "p"}, alert)
    assert same_series({"namespace": "n", "pod": "p", "replica": "0"}, alert)
    assert same_series({}, alert), "an expression without labels, such as absent()"
    assert not same_series({"namespace": "n", "pod": "q"}, alert)
    assert not same_series({"replica": "0"}, alert)


def test_a_link_gives_its_expression_only_if_it_is_one() -> None:
    assert expression_in_link("http://p/graph?g0.expr=up+%3D%3D+0&g0.tab=1") == "up == 0"
    assert expression_in_link("http://p/graph?g0.expr=up%7B") == ""
    assert expression_in_link("http://[p/graph") == ""


def test_a_rule_is_found_by_name_and_added_labels() -> None:
    rules = [
        AlertRule("A", "x > 1", 0, {"severity": "critical"}),
        AlertRule("A", "x > 0", 0, {"severity": "warning", "team": "{{ $labels.team }}"}),
    ]
    alert = Alert.model_validate(
        {
            "id": "a", "cluster": "c", "fingerprint": "f", "status": "firing", "starts_at": NOW,
            "labels": {"alertname": "A", "severity": "warning", "team": "x"}, "received_at": NOW,
        }
    )  # fmt: skip
    assert rule_of(alert, rules) is rules[1]
    assert rule_of(alert, rules[:1]) is rules[0]
    assert rule_of(alert, []) is None


def test_a_gathered_query_has_its_places_quoted_or_is_not_asked() -> None:
    facts: Object = {"workload": {"kind": "Deployment", "name": 'a"b.c'}, "pod": {}, "node": {}}
    known = places({"namespace": "n", "alertname": "A"}, facts)
    query = fill("x{namespace={namespace},d={deployment},pod=~{workload_pods}}", known)
    assert query == r'x{namespace="n",d="a\"b.c",pod=~"a\\\"b\\.c-.*"}'
    parse(query)
    with pytest.raises(PlaceUnknownError, match="node"):
        fill("x{node={node}}", known)


def test_an_exporters_pod_is_not_the_alerts_pod() -> None:
    assert names_a_pod({"namespace": "n", "pod": "p"})
    assert not names_a_pod({"namespace": "n", "deployment": "d", "pod": "kube-state-metrics-x"})


# --- what is kept -------------------------------------------------------------------------------


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
))  # fmt: skip
def test_whatever_is_written_down_is_json_that_can_be_hashed(value: Any) -> None:
    canonical(bounded(value))


def test_what_is_written_down_is_bounded() -> None:
    kept = bounded({"log": "x" * 100_000, "list": list(range(10_000)), "nan": math.nan})
    assert isinstance(kept, dict)
    assert len(str(kept["log"])) == MAX_STRING
    assert isinstance(kept["list"], list)
    assert len(kept["list"]) == MAX_ITEMS
    assert kept["nan"] is None


def test_evidence_keeps_a_bounded_answer_and_is_named_by_its_content() -> None:
    told = make_evidence(Source.LOGS, "logs", NOW, ("x" * 100_000, "y" * 100_000))
    assert len(told.model_dump_json()) < MAX_STRING + 1_000
    assert told == make_evidence(Source.LOGS, "logs", NOW, ("x" * 100_000, "y" * 100_000))
    assert told.id != make_evidence(Source.LOGS, "logs", NOW, ("x", "y"), ok=False).id


def test_a_part_added_twice_counts_once() -> None:
    part: dict[str, Any] = {"alert": {"a": 1}, "list": [1]}
    once = merged({"alert": {"b": 2}}, part)
    assert merged(once, part) == once == {"alert": {"a": 1, "b": 2}, "list": [1]}


# --- series -------------------------------------------------------------------------------------


def series(values: Sequence[float]) -> Series:
    return Series({}, [(15.0 * i, v) for i, v in enumerate(values)])


def test_a_chart_keeps_few_points_and_the_last() -> None:
    points = downsampled(series([float(i) for i in range(241)]))
    assert len(points) <= 60
    assert points[-1] == [3600, 240.0]


def test_hostile_labels_stay_inside_their_queries() -> None:
    labels = {"namespace": 'n"}) or vector(1', "deployment": 'd"} or up{x="'}
    for question in questions(labels):
        parse(question.query)
        assert quoted(labels["namespace"])[1:-1] in question.query


# --- pods ---------------------------------------------------------------------------------------


def pod(state: dict[str, Any], *, ready: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "uid": "u", "creationTimestamp": ago(90)},
        "spec": {"containers": [{"name": "app"}]},
        "status": {
            "phase": more.pop("phase", "Running"),
            "conditions": [{"type": "Ready", "status": str(ready)}, *more.pop("conditions", [])],
            "containerStatuses": [{"name": "app", "ready": ready, "state": state, **more}],
        },
    }


def ended(code: int, reason: str = "Error", minutes: float = 1) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": ago(minutes)}}


@pytest.mark.parametrize(
    ("thing", "trouble"),
    [
        (pod({"running": {}}, ready=True), Trouble.NONE),
        (pod({"running": {}}), Trouble.UNREADY),
        (pod({"running": {}}, lastState=ended(1, minutes=500)), Trouble.UNREADY),
        (pod({"running": {}}, lastState=ended(1)), Trouble.CRASH),
        (pod({"waiting": {"reason": "CrashLoopBackOff"}}), Trouble.CRASH),
        (
            pod({"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended(137, "OOMKilled")),
            Trouble.OUT_OF_MEMORY,
        ),
        (pod({"waiting": {"reason": "ErrImagePull"}}, phase="Pending"), Trouble.IMAGE),
        (pod({"waiting": {"reason": "CreateContainerConfigError"}}), Trouble.CONFIG),
        (pod({"waiting": {"reason": "ContainerCreating"}}, phase="Pending"), Trouble.STARTING),
        (
            pod({}, phase="Pending", conditions=[{"type": "PodScheduled", "status": "False"}]),
            Trouble.UNSCHEDULABLE,
        ),
        (pod({}, phase="Succeeded"), Trouble.ENDED),
    ],
)
def test_what_holds_a_pod_up(thing: Object, trouble: Trouble) -> None:
    assert trouble_of(thing, NOW) is trouble
    assert pod_facts(thing, NOW)["trouble"] == trouble.value


def test_a_pod_of_any_shape_can_be_read() -> None:
    for thing in ({}, {"status": None}, {"status": {"containerStatuses": [None, 3]}, "spec": []}):
        pod_facts(thing, NOW)
        pods_facts([thing], "", NOW)


def fell_out(minutes: float) -> dict[str, Any]:
    found = pod({"running": {}})
    found["status"]["conditions"][0]["lastTransitionTime"] = ago(minutes)
    return found


def born(minutes: float) -> dict[str, Any]:
    found = pod({"running": {}}, ready=True)
    found["metadata"] |= {"uid": "u2", "creationTimestamp": ago(minutes)}
    return found


@pytest.mark.parametrize(
    ("pods", "count"),
    [
        ([fell_out(9), fell_out(8), born(7), born(3)], 2),
        ([fell_out(9), fell_out(5), born(7), born(3)], 1),
        ([fell_out(9), born(9)], 0),
        ([fell_out(9), born(90)], 0),
        ([born(3)], 0),
        ([fell_out(9), pod({"running": {}}), born(3)], 0),
    ],
)
def test_ready_pods_that_were_made_since_the_others_fell_out_are_counted(
    pods: list[dict[str, Any]], count: int
) -> None:
    """One that was well before says nothing, nor does one of the same second."""
    assert pods_facts(pods, "", NOW)["ready_since"] == count


# --- rollouts -----------------------------------------------------------------------------------


def replicaset(revision: int, minutes: float, image: str) -> dict[str, Any]:
    return {
        "metadata": {
            "uid": f"rs{revision}",
            "creationTimestamp": ago(minutes),
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
        },
        "spec": {"template": {"spec": {"containers": [{"name": "app", "image": image, "env": [
            {"name": "PASSWORD", "value": f"secret-{revision}"}]}]}}},
    }  # fmt: skip


def test_a_rollout_whose_newest_pods_crash_is_stuck_not_under_way() -> None:
    deployment = {
        "metadata": {"generation": 2},
        "spec": {"replicas": 3},
        "status": {"observedGeneration": 2, "updatedReplicas": 1, "replicas": 4},
    }
    history = [replicaset(2, 5, "x:2"), replicaset(1, 500, "x:1")]
    fresh = pod({"waiting": {"reason": "CrashLoopBackOff"}})
    fresh["metadata"]["ownerReferences"] = [{"controller": True, "uid": "rs2", "kind": "ReplicaSet",
                                             "apiVersion": "apps/v1", "name": "x"}]  # fmt: skip
    stuck = rollout_facts(deployment, "Deployment", history, [fresh], NOW)
    assert (stuck["stuck"], stuck["in_progress"], stuck["recent"]) == (True, False, True)
    assert stuck["changed"] == ["env", "image"]
    assert "secret" not in str(stuck)
    moving = rollout_facts(deployment, "Deployment", history, [], NOW)
    assert (moving["stuck"], moving["in_progress"]) == (False, True)


def test_a_revision_that_came_back_did_not_begin_at_its_birth() -> None:
    deployment = {"status": {"conditions": [{"type": "Progressing", "lastUpdateTime": ago(7)}]}}
    history = [replicaset(3, 900, "x:1"), replicaset(2, 60, "x:2")]
    assert rollout_facts(deployment, "Deployment", history, [], NOW)["minutes"] == 7


# --- whose it is --------------------------------------------------------------------------------

REPLICAS = [Change(path="/spec/replicas", present=2, intended=3)]
IMAGE = [Change(path="/spec/template/spec/containers/0/image", present="a", intended="b")]
DELETED = [Change(path="", present={}, intended=None)]


def managed(manager: str, fields: dict[str, Any], **meta: Any) -> dict[str, Any]:
    entry = {"manager": manager, "operation": "Update", "fieldsV1": fields}
    return {"metadata": {"managedFields": [entry], **meta}}


@pytest.mark.parametrize(
    ("thing", "changes", "owner"),
    [
        (managed("argocd-controller", {"f:spec": {"f:replicas": {}}}), REPLICAS, "argocd"),
        (managed("argocd-controller", {"f:spec": {"f:template": {}}}), REPLICAS, None),
        (
            managed("kustomize-controller", {"f:spec": {"f:template": {"f:spec": {"f:containers": {
                'k:{"name":"app"}': {"f:image": {}}}}}}}),
            IMAGE,
            "kustomize-controller",
        ),
        (managed("kubectl-edit", {"f:spec": {"f:replicas": {}}}), REPLICAS, None),
        (managed("kube-controller-manager", {"f:spec": {"f:replicas": {}}}), REPLICAS, None),
        (managed("redis-operator", {"f:spec": {"f:replicas": {}}}), REPLICAS, "redis-operator"),
        (managed("x", {}, annotations={"argocd.argoproj.io/tracking-id": "app:1"}), IMAGE, "Argo"),
        (managed("x", {}, labels={"kustomize.toolkit.fluxcd.io/name": "apps"}), IMAGE, "Flux"),
        ({}, IMAGE, None),
    ],
)  # fmt: skip
def test_who_would_write_a_field_back(
    thing: Object, changes: Sequence[Change], owner: str | None
) -> None:
    found = field_owner(thing, [], changes)
    assert (found or "").startswith(owner or "")
    assert (found is None) == (owner is None)


def test_an_operator_owns_what_its_resource_controls_but_not_its_pods_pods() -> None:
    custom = Owner(api_version="db/v1", kind="Postgres", name="orders", uid="u")
    stateful = Owner(api_version="apps/v1", kind="StatefulSet", name="orders", uid="s")
    assert field_owner({}, [custom], REPLICAS) == "Postgres orders (its operator)"
    assert field_owner({}, [custom], DELETED) == "Postgres orders (its operator)"
    assert field_owner({}, [stateful, custom], DELETED) is None
    assert field_owner({}, [stateful, custom], REPLICAS) is not None


def sight(kind: str = "Pod", owners: Sequence[Owner] = (), **more: Any) -> Sight:
    thing = more.get("thing", {})
    return Sight(
        target=Target(cluster="c", api_version="v1", kind=kind, namespace="n", name="x", uid="u"),
        thing=thing,
        owners=owners,
        owner_annotations=more.get("annotations", [{}]),
        workload=Link("apps/v1", "Deployment", {}),
        namespace=more.get("namespace", {}),
        pods=more.get("pods", [thing]),
        replicasets=[],
        autoscalers=[],
    )


def gpu_pod(gpus: int) -> dict[str, Any]:
    limits = {"nvidia.com/gpu": str(gpus), "cpu": "4"}
    return {
        "spec": {"containers": [{"name": "t", "resources": {"limits": limits}}]},
        "status": {"startTime": ago(180)},
    }


def test_ending_a_long_job_is_told_with_its_gpu_hours() -> None:
    trainer = gpu_pod(8)
    assert gpus_of(trainer) == 8
    assert gpu_hours([trainer, trainer], NOW) == 48
    job = Owner(api_version="kubeflow.org/v1", kind="PyTorchJob", name="llm", uid="j")
    assert "GPUs" in (long_job(sight(thing=trainer), DELETED) or "")
    assert "PyTorchJob llm" in (long_job(sight(owners=[job]), DELETED) or "")
    assert "annotated" in (
        long_job(sight(annotations=[{}, {"tiphys.io/long-running": "true"}]), DELETED) or ""
    )
    quiet = sight(annotations=[{"tiphys.io/long-running": "false"}])
    assert long_job(quiet, DELETED) is None
    assert long_job(sight(kind="Deployment", pods=[trainer]), REPLICAS) is None, "it only adds"
    fewer = [Change(path="/spec/replicas", present=3, intended=2)]
    assert long_job(sight(kind="Deployment", pods=[trainer]), fewer) is not None


def test_a_gang_is_one_target() -> None:
    job = Owner(api_version="batch/v1", kind="Job", name="llm", uid="j")
    gang = [gpu_pod(8), gpu_pod(8)]
    assert ended_pods(sight(owners=[job], thing=gang[0], pods=gang), DELETED) == gang


class _Events:
    """A cluster in which runs left these Events, just now."""

    def __init__(self, *names: str) -> None:
        self._names = names

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        return {"firstTimestamp": NOW.isoformat()} if name in self._names else None

    async def list(self, *args: Any, **kwargs: Any) -> Sequence[Object]:
        return ()

    async def logs(self, *args: Any, **kwargs: Any) -> str:
        return ""


async def test_a_mark_is_open_until_its_run_was_verified() -> None:
    marked = {"metadata": {"namespace": "n", "annotations": {"tiphys.io/run": "abc.act"}}}
    assert await open_mark(_Events(), marked, NOW) == "abc.act"
    assert await open_mark(_Events("tiphys-abc.kept"), marked, NOW) is None
    undone = {"metadata": {"namespace": "n", "annotations": {"tiphys.io/run": "abc.undone"}}}
    assert await open_mark(_Events(), undone, NOW) is None
    assert await open_mark(_Events(), {"metadata": {}}, NOW) is None


async def test_a_scaled_workload_is_open_while_its_runs_events_say_so() -> None:
    entry = {"manager": "tiphys-abc", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    scaled = {"metadata": {"namespace": "n", "managedFields": [entry]}}
    assert await open_mark(_Events("tiphys-abc.act"), scaled, NOW) == "abc.act"
    assert await open_mark(_Events("tiphys-abc.act", "tiphys-abc.kept"), scaled, NOW) is None
    assert await open_mark(_Events(), scaled, NOW) is None, "it was over an hour ago"
    later = NOW + timedelta(hours=2)
    assert await open_mark(_Events("tiphys-abc.act"), scaled, later) is None
