"""Symptoms of production's facts, the table of signatures, and playbooks that are asked last."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Answer, Case, Findings
from tiphys.agents.signatures import MAX_LINE, Sign, signs_in
from tiphys.agents.symptoms import SYMPTOMS, symptoms_of, told
from tiphys.policies.model import Alert, Json
from tiphys.service.evaluation.vocabulary import DEED_OF
from tiphys.workflow_templates.catalogue import every

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
SHIPPED = Playbooks.load()
ILL: dict[str, Any] = {
    "workload": {"replicas": 3},
    "rollout": {"recent": False, "stuck": False, "in_progress": False},
    "pods": {"failing": 1, "ready": 2},
    "pod": {
        "trouble": "unready",
        "controlled_by": "ReplicaSet",
        "log_tail": [],
        "waiting_message": "",
    },
    "node": {"name": "n", "ready": True, "pressures": [], "cordoned": False},
    "events": {"recent": []},
}


def findings(facts: dict[str, Json], name: str = "CheckoutErrors") -> Findings:
    alert = Alert.model_validate(
        {"id": "a", "cluster": "c", "fingerprint": "f", "status": "firing", "starts_at": NOW,
         "labels": {"alertname": name}, "received_at": NOW}
    )  # fmt: skip
    return Findings(Case("i", 1, "c", True, "s", [alert]), facts, {}, [])


def with_symptoms(*names: str) -> dict[str, Json]:
    return {"alert": {"name": "X"}, "symptoms": told(dict.fromkeys(names, True))}


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        pytest.param("x509: certificate has expired", Sign.CERTIFICATE, id="tls"),
        pytest.param("FATAL: password authentication failed", Sign.CREDENTIALS, id="auth"),
        pytest.param("dial tcp: lookup db on 10.0.0.10:53: no such host", Sign.NAMES, id="dns"),
        pytest.param("connect: connection refused", Sign.DEPENDENCY, id="refused"),
        pytest.param("upstream answered status=503", Sign.DEPENDENCY, id="503"),
        pytest.param("panic: runtime error: nil pointer dereference", Sign.PROGRAM, id="panic"),
        pytest.param("write /data/x: no space left on device", Sign.DISK_FULL, id="disk"),
        pytest.param("FATAL: sorry, too many clients already", Sign.CONNECTIONS, id="clients"),
        pytest.param("manifest for shop/cart:9.9 not found", Sign.IMAGE_MISSING, id="image"),
        pytest.param("last state: OOMKilled", Sign.MEMORY, id="oom"),
    ],
)  # fmt: skip
def test_a_line_means_what_the_table_says(line: str, sign: Sign) -> None:
    assert sign in signs_in([line])


def test_ordinary_lines_mean_nothing_and_no_line_takes_long() -> None:
    assert signs_in(["listening on :8080", "GET /cart 200 in 12 ms", ""]) == set()
    started = time.process_time()
    signs_in(["pull registry image " * 5_000 + "x"] * 200)
    assert time.process_time() - started < 10
    assert MAX_LINE < 1_000


def test_nothing_read_is_no_symptom() -> None:
    found = symptoms_of({})
    assert [name for name in SYMPTOMS if found[name]] == []
    assert found["seen"] == []


async def test_one_ill_pod_on_a_sound_node_is_restarted_whatever_the_alert_is_called() -> None:
    choice = await SHIPPED.decide(findings({**ILL, "symptoms": symptoms_of(ILL)}))
    assert (choice.answer, choice.action, choice.target) == (Answer.ACT, "restart-pod", "pod")


@pytest.mark.parametrize(
    ("group", "change"),
    [
        pytest.param("node", {"ready": False}, id="node-not-ready"),
        pytest.param("node", {"pressures": ["DiskPressure"]}, id="pressure"),
        pytest.param("node", {"cordoned": True}, id="cordoned"),
        pytest.param("rollout", {"recent": True}, id="released-lately"),
        pytest.param("rollout", {"in_progress": True}, id="rollout"),
        pytest.param("pods", {"failing": 2}, id="two-ill"),
        pytest.param("pods", {"ready": 0}, id="no-sibling"),
        pytest.param("pod", {"controlled_by": "StatefulSet"}, id="stateful"),
        pytest.param("pod", {"log_tail": ["x509: certificate has expired"]}, id="certificate"),
        pytest.param("pod", {"log_tail": ["lookup db: no such host"]}, id="names"),
        pytest.param("events", {"recent": ["FailedMount: stale file handle"]}, id="storage"),
    ],
)
async def test_what_speaks_against_a_restart_calls_a_human(
    group: str, change: dict[str, Json]
) -> None:
    facts: dict[str, Any] = {**ILL, group: {**ILL[group], **change}}
    choice = await SHIPPED.decide(findings({**facts, "symptoms": symptoms_of(facts)}))
    assert choice.answer is Answer.ESCALATE


async def test_evidence_for_different_answers_calls_a_human() -> None:
    books = SHIPPED
    stale = await books.decide(findings(with_symptoms("stale_pods")))
    assert stale.action == "rollout-restart"
    both = with_symptoms("stale_pods", "recovered", "scaled_to_zero")
    choice = await books.decide(findings({**both, "autoscaler": {"present": False}}))
    assert choice.answer is Answer.ESCALATE
    assert "different answers" in choice.reason
    assert choice.action == ""


async def test_a_teams_own_playbook_is_asked_alone(tmp_path: Path) -> None:
    mine = (
        "name: mine\nversion: 1\nmatch: {alerts: [CheckoutErrors]}\nanswers: [{escalate: ours}]\n"
    )
    (tmp_path / "mine.yaml").write_text(mine)
    facts = findings(with_symptoms("stale_pods"))
    assert (await Playbooks.load(tmp_path).decide(facts)).reason == "ours"
    assert (await SHIPPED.decide(facts)).action == "rollout-restart"


async def test_without_a_symptom_the_alerts_own_playbook_answers() -> None:
    choice = await SHIPPED.decide(findings(with_symptoms(), name="Watchdog"))
    assert (choice.answer, choice.decided_by.playbook) == (Answer.NOTHING, "always-firing")


def test_the_vocabulary_has_every_action_of_the_catalogue() -> None:
    assert set(DEED_OF) == {action.name for action in every()}


async def test_symptoms_do_not_override_the_playbook_that_is_for_the_alert() -> None:
    facts: dict[str, Any] = {**ILL, "symptoms": symptoms_of(ILL)}
    assert (await SHIPPED.decide(findings(facts))).action == "restart-pod"
    choice = await SHIPPED.decide(findings(facts, name="KubeHpaMaxedOut"))
    assert (choice.answer, choice.decided_by.playbook) == (Answer.ESCALATE, "autoscalers")


async def test_where_nothing_was_read_of_a_cluster_the_symptoms_are_asked_before_it() -> None:
    read = findings(with_symptoms("stale_pods"), name="KubeHpaMaxedOut")
    assert (await SHIPPED.decide(read)).answer is Answer.ESCALATE
    assert (await SHIPPED.decide(replace(read, retold=True))).action == "rollout-restart"
