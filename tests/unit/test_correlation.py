"""What an alert is about, and which alerts are one."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.policies.correlation import RUN, UNDO, alert_id, fingerprint, subject, workload_of
from tiphys.policies.model import AlertStatus

POSTS = Path(__file__).parents[1] / "data" / "alertmanager" / "webhook_posts.jsonl"
KSM = {
    "job": "kube-state-metrics",
    "service": "kube-state-metrics",
    "endpoint": "https-main",
    "instance": "10.0.2.15:8443",
    "container": "kube-state-metrics",
}
KSM_POD = "kube-state-metrics-b894d84cc-d6htw"


def test_three_crashing_pods_and_their_deployment_are_one_subject() -> None:
    pods = ["cart-7cc77d965f-cgsdv", "cart-7cc77d965f-x2x4z", "cart-b894d84cc-7wqhn"]
    crashes = [
        {"alertname": "KubePodCrashLooping", "namespace": "shop", "pod": pod, **KSM} for pod in pods
    ]
    mismatch = {
        **KSM,
        "alertname": "KubeDeploymentReplicasMismatch",
        "namespace": "shop",
        "deployment": "cart",
        "pod": KSM_POD,
    }
    assert {subject(labels) for labels in [*crashes, mismatch]} == {"deployment shop/cart"}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ("cart-5d8f7c9b6-x2x4z", "deployment shop/cart"),
        ("cart-v2-7cc77d965f-cgsdv", "deployment shop/cart-v2"),
        ("db-0", "statefulset shop/db"),
        ("db-shard-12", "statefulset shop/db-shard"),
        ("node-exporter-d6htw", "daemonset shop/node-exporter"),
        ("backup-28612345-x7k2p", "job shop/backup-28612345"),
        ("lonely", "pod shop/lonely"),
        ("pod-running-but-not-ready", "pod shop/pod-running-but-not-ready"),
        ("import-1597623120", "pod shop/import-1597623120"),
        ("web-007", "pod shop/web-007"),
        # `grpchttp` has no vowel, but no digit either: not a template's hash
        ("cart-grpchttp-x2x4z", "daemonset shop/cart-grpchttp"),
        ("test-pod", "pod shop/test-pod"),
    ],
)
def test_a_pod_name_gives_its_workload(pod: str, expected: str) -> None:
    assert workload_of("shop", pod) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"node": "worker-3"}, "node worker-3"),
        ({**KSM, "pod": KSM_POD, "namespace": "monitoring", "node": "worker-3"}, "node worker-3"),
        ({**KSM, "job_name": "train", "namespace": "ml"}, "job ml/train"),
        ({**KSM, "namespace": "ml"}, "namespace ml"),
        ({**KSM}, "Odd"),
        ({"job": "kube-apiserver"}, "Odd"),
        ({"job": "etcd", "instance": "10.0.0.7:2379"}, "instance etcd/10.0.0.7:2379"),
        ({"namespace": "shop", "service": "cart"}, "service shop/cart"),
        ({"namespace": "shop", "replicaset": "cart-7cc77d965f"}, "deployment shop/cart"),
        ({"workload": "cart", "workload_type": "deployment"}, "deployment cart"),
        (
            {"persistentvolumeclaim": "data", "namespace": "s", "node": "n"},
            "persistentvolumeclaim s/data",
        ),
        (
            {
                **KSM,
                "pod": KSM_POD,
                "namespace": "monitoring",
                "exported_pod": "db-0",
                "exported_namespace": "shop",
            },
            "statefulset shop/db",
        ),
        (
            {
                "job": "node-exporter",
                "instance": "10.0.0.5:9100",
                "namespace": "monitoring",
                "pod": "node-exporter-d6htw",
            },
            "node 10.0.0.5",
        ),
        (
            {
                "job": "nvidia-dcgm-exporter",
                "Hostname": "gpu-7",
                "pod": "train-0",
                "namespace": "ml",
            },
            "node gpu-7",
        ),
        (
            {**KSM, "pod": KSM_POD, "namespace": "monitoring"},
            "deployment monitoring/kube-state-metrics",
        ),
    ],
)
def test_subject(labels: dict[str, str], expected: str) -> None:
    assert subject({"alertname": "Odd", **labels}) == expected


def test_an_alert_without_a_name_has_a_subject() -> None:
    assert subject({}) == "(unnamed)"


def test_the_fingerprint_is_alertmanagers_own() -> None:
    alerts = [a for line in POSTS.read_text().splitlines() for a in json.loads(line)["alerts"]]
    assert len(alerts) == 53
    assert [fingerprint(a["labels"]) for a in alerts] == [a["fingerprint"] for a in alerts]


def test_the_id_is_stable_and_tells_every_part() -> None:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first = alert_id("c", "f", start, AlertStatus.FIRING)
    elsewhere = start.astimezone(timezone(timedelta(hours=5)))
    assert alert_id("c", "f", elsewhere, AlertStatus.FIRING) == first
    others = {
        alert_id("d", "f", start, AlertStatus.FIRING),
        alert_id("c", "g", start, AlertStatus.FIRING),
        alert_id("c", "f", start + timedelta(microseconds=1), AlertStatus.FIRING),
        alert_id("c", "f", start, AlertStatus.RESOLVED),
        alert_id("c\x00f", "", start, AlertStatus.FIRING),
    }
    assert len(others | {first}) == 6


@pytest.mark.parametrize(
    "labels",
    [
        {"alertname": "run scale-workload Deployment shop/cart"},
        {"alertname": "undo tiphys-abc"},
        {"workload_type": "UNDO", "workload": "tiphys-abc"},
        {"workload_type": "run scale-workload Deployment", "workload": "cart", "namespace": "shop"},
    ],
    ids=["named-run", "named-undo", "workload-undo", "workload-run"],
)
def test_no_alert_speaks_of_a_persons_wish(labels: dict[str, str]) -> None:
    found = subject(labels)
    assert found.startswith((f"alert {RUN}", f"alert {UNDO}"))


_NAMES = st.sampled_from(
    [
        "alertname",
        "cluster",
        "namespace",
        "pod",
        "node",
        "job",
        "service",
        "instance",
        "deployment",
        "exported_pod",
        "exported_namespace",
        "workload",
        "workload_type",
        "replicaset",
        "Hostname",
    ]
)


@given(st.dictionaries(_NAMES, st.text(max_size=40)))
def test_any_labels_have_one_subject(labels: dict[str, str]) -> None:
    found = subject(labels)
    assert found == subject(dict(reversed(labels.items())))
    assert found
