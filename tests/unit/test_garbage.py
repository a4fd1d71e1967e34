"""What counts as garbage: the same for planning and admission, and never what explains a fault."""

from collections.abc import Sequence
from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.agents.garbage_facts import garbage_facts, nodes_of
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Answer, Case, Findings, UnansweredError
from tiphys.agents.resolver import Link
from tiphys.agents.target_facts import Sight, ended_pods, field_owner, long_job
from tiphys.policies.model import Alert, Change, Json, ObjectReference, Target
from tiphys.workflow_templates.action import Action, NotApplicableError
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.garbage_pods import REASONS, garbage_of, reason_of
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.scheduled_runs import (
    later_success,
    living_maker,
    still_at_work,
)

Obj = dict[str, Any]
UID = {"preconditions": {"uid": "u-1"}}


def owner(kind: str = "ReplicaSet", **more: Any) -> Obj:
    version = "apps/v1" if kind == "ReplicaSet" else "batch/v1"
    return {
        "apiVersion": version,
        "kind": kind,
        "name": "o",
        "uid": "u-set",
        "controller": True,
    } | more


def pod(name: str = "cart-1", *owners: Obj, **status: Any) -> Obj:
    told = {"phase": "Failed", "reason": "Evicted", **status}
    meta = {"name": name, "uid": f"u-{name}", "ownerReferences": [*(owners or (owner(),))]}
    return {"metadata": meta, "spec": {"nodeName": "n-1", "containers": []}, "status": told}


DEPLOYMENT = {"kind": "Deployment", "metadata": {"name": "cart", "uid": "u-dep"}}
SETS = [{"metadata": {"uid": "u-set", "ownerReferences": [owner("Deployment", uid="u-dep")]}}]


def refused(action: Action, old: Obj, **options: Any) -> list[str]:
    """Give the messages of the guards that do not let a deletion pass, as admission judges it."""
    context = cel.Context({"oldObject": old, "request": {"options": options}})
    return [
        g.message for g in action.guards if cel.compile(g.expression).execute(context) is not True
    ]


# --- pods ---------------------------------------------------------------------------------------

BY_UID, ENDED, OWNED = (guard.message for guard in find("delete-failed-pods").guards)


@pytest.mark.parametrize(
    ("old", "options", "by"),
    [
        (pod(), UID, []),
        (pod(reason="OutOfnvidia.com/gpu"), UID, []),
        (pod(), {}, [BY_UID]),
        (pod(), {"preconditions": {}}, [BY_UID]),
        (pod(phase="Running"), UID, [ENDED]),
        (pod(phase="Succeeded"), UID, [ENDED]),
        (pod(reason="Error"), UID, [ENDED]),
        ({**pod(), "status": {"phase": "Failed"}}, UID, [ENDED]),
        ({**pod(), "status": {}}, UID, [ENDED]),
        (pod("a", owner("Job")), UID, [OWNED]),
        (pod("a", owner("Workflow")), UID, [OWNED]),
        (pod("a", owner("PyTorchJob")), UID, [OWNED]),
        (pod("a", owner("StatefulSet")), UID, [OWNED]),
        (pod("a", owner(apiVersion="example.org/v1")), UID, [OWNED]),
        (pod("a", owner(controller=False), owner("Job")), UID, [OWNED]),
        ({**pod(), "metadata": {"name": "lone"}}, UID, [OWNED]),
    ],
)  # fmt: skip
def test_admission_lets_only_garbage_go_and_each_guard_is_needed(
    old: Obj, options: Obj, by: Sequence[str]
) -> None:
    assert refused(find("delete-failed-pods"), old, **options) == by


PODS = st.builds(
    lambda kind, phase, reason: pod("x", owner(kind), phase=phase, reason=reason),
    st.sampled_from(["ReplicaSet", "Job", "Workflow", "StatefulSet", "DaemonSet"]),
    st.sampled_from(["Failed", "Running", "Pending", "Succeeded", "Unknown"]),
    st.sampled_from([*REASONS, "OutOfcpu", "OutOf", "outofcpu", "Error", "", "EvictedX"]),
)


@given(PODS)
def test_what_is_planned_is_what_admission_lets_go(one: Obj) -> None:
    assert (reason_of(one) is not None) == (not refused(find("delete-failed-pods"), one, **UID))


def test_a_pod_that_nobody_keeps_is_nobody_s_garbage() -> None:
    lone: Obj = {**pod(), "metadata": {"name": "lone", "uid": "u-lone"}}
    assert reason_of(lone) is None
    assert garbage_of(DEPLOYMENT, {"ReplicaSet": SETS, "Pod": [lone]}) == []


def test_garbage_is_the_deployment_s_own_and_not_on_its_way_out() -> None:
    ending = pod("c")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    strange = pod("d", owner(uid="u-other"))
    found = garbage_of(
        DEPLOYMENT, {"ReplicaSet": SETS, "Pod": [pod("b"), pod("a"), ending, strange]}
    )
    assert [one["metadata"]["name"] for one in found] == ["a", "b"]  # type: ignore[index,call-overload]
    assert garbage_of(DEPLOYMENT, {"ReplicaSet": [], "Pod": [pod()]}) == []


# --- a CronJob's failed run ---------------------------------------------------------------------

JOB_BY_UID, WITH_PODS, AT_REST, SCHEDULED = (g.message for g in find("delete-failed-job").guards)
BACKGROUND = {**UID, "propagationPolicy": "Background"}


def job(*owners: Obj, failed: str = "True", **status: Any) -> Obj:
    told = {"conditions": [{"type": "Failed", "status": failed, "reason": "x"}], **status}
    meta = {"name": "report-1", "ownerReferences": [*(owners or (owner("CronJob"),))]}
    return {"metadata": meta, "status": told}


@pytest.mark.parametrize(
    ("old", "options", "by"),
    [
        (job(), BACKGROUND, []),
        (job(active=0, terminating=0), BACKGROUND, []),
        (job(), {"propagationPolicy": "Background"}, [JOB_BY_UID]),
        (job(), {**BACKGROUND, "preconditions": {"resourceVersion": "1"}}, [JOB_BY_UID]),
        (job(), UID, [WITH_PODS]),
        (job(), {**UID, "propagationPolicy": "Orphan"}, [WITH_PODS]),
        (job(), {**UID, "propagationPolicy": "Foreground"}, [WITH_PODS]),
        (job(failed="False"), BACKGROUND, [AT_REST]),
        (job(conditions=[{"type": "Complete", "status": "True"}]), BACKGROUND, [AT_REST]),
        ({**job(), "status": {}}, BACKGROUND, [AT_REST]),
        (job(active=1), BACKGROUND, [AT_REST]),
        (job(terminating=1), BACKGROUND, [AT_REST]),
        (job(owner("Workflow")), BACKGROUND, [SCHEDULED]),
        (job(owner("CronJob", controller=False)), BACKGROUND, [SCHEDULED]),
        (job(owner("CronJob", apiVersion="example.org/v1")), BACKGROUND, [SCHEDULED]),
        ({**job(), "metadata": {"name": "lone"}}, BACKGROUND, [SCHEDULED]),
    ],
)  # fmt: skip
def test_admission_lets_only_a_scheduled_run_go_that_has_failed(
    old: Obj, options: Obj, by: Sequence[str]
) -> None:
    assert refused(find("delete-failed-job"), old, **options) == by


def run_of(name: str, minute: int, end: str = "Complete", maker: str = "u-set") -> Obj:
    conditions = [{"type": end, "status": "True"}] if end else []
    meta = {"name": name, "creationTimestamp": f"2026-01-01T00:{minute:02}:00Z"}
    by = [owner("CronJob", uid=maker)] if maker else []
    return {"metadata": {**meta, "ownerReferences": by}, "status": {"conditions": conditions}}


FAILED = run_of("report-1", 10, "Failed")


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ([], None),
        ([run_of("a", 11)], "a"),
        ([run_of("a", 11), run_of("b", 12)], "b"),
        ([run_of("a", 11), run_of("b", 12, "")], "a"),
        ([run_of("a", 11), run_of("b", 12, "Suspended")], "a"),
        ([run_of("a", 11), run_of("b", 12, "FailureTarget")], "a"),
        ([run_of("a", 9)], None),
        ([run_of("a", 10)], None),
        ([run_of("z", 10)], None),
        ([run_of("a", 11), run_of("b", 12, "Failed")], None),
        ([run_of("a", 11, "Failed"), run_of("b", 12)], "b"),
        ([run_of("a", 11, "")], None),
        ([run_of("a", 11, maker="u-other")], None),
        ([run_of("a", 11, maker="")], None),
    ],
)
def test_only_the_last_run_that_ended_makes_up_for_a_failure(
    others: list[Obj], found: str | None
) -> None:
    for jobs in ([FAILED, *others], [*reversed(others), FAILED]):
        later = later_success(FAILED, jobs)
        assert (at(later, "/metadata/name") if later else None) == found
    assert later_success(run_of("lone", 10, "Failed", maker=""), others) is None


@pytest.mark.parametrize("kind", ["Workflow", "SeldonJob", "Job"])
def test_no_other_owner_s_next_job_makes_up_for_one(kind: str) -> None:
    def other(name: str, minute: int, end: str) -> Obj:
        made = run_of(name, minute, end)
        made["metadata"]["ownerReferences"] = [owner(kind)]
        return made

    failed = other("report-1", 10, "Failed")
    assert later_success(failed, [failed, other("a", 11, "Complete")]) is None
    with pytest.raises(NotApplicableError, match="no CronJob made this Job"):
        living_maker(failed, [{"metadata": {"uid": "u-set"}}])


def test_a_pod_that_nobody_keeps_does_not_hold_up_a_job_beside_it() -> None:
    lone = {"metadata": {"name": "lone"}, "status": {"phase": "Running"}}
    itself: Obj = {**FAILED, "metadata": {**FAILED["metadata"], "uid": "u-set"}}
    assert still_at_work(itself, [lone]) is None
    running = pod("report-1-x", owner("Job"), phase="Running")
    assert still_at_work(itself, [lone, running]) == "pod report-1-x has not ended"


def test_a_cronjob_on_its_way_out_vouches_for_nothing() -> None:
    made: Obj = {"metadata": {"uid": "u-set", "name": "report"}}
    assert living_maker(FAILED, [made]) is made
    made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(NotApplicableError, match="is gone"):
        living_maker(FAILED, [made])


async def test_a_failed_run_is_deleted_only_when_it_was_made_up_for() -> None:
    base: dict[str, Json] = {
        "name": "report-1", "cronjob": "report", "cronjob_suspended": False, "active": 0,
        "later_success": "report-2", "failed": 1, "succeeded": 0, "failed_because": "x",
        "failed_message": "y",
    }  # fmt: skip

    async def answer(**changes: Json) -> tuple[Answer, str]:
        facts: dict[str, Json] = {"job": {**base, **changes}, "resolution": {"ambiguous": False}}
        return await decided("KubeJobFailed", facts)

    assert await answer() == (Answer.ACT, "delete-failed-job")
    stays = (Answer.ESCALATE, "")
    assert await answer(later_success="") == stays
    assert await answer(cronjob_suspended=True) == stays
    assert await answer(active=1) == stays
    assert await answer(cronjob="", later_success="") == stays
    assert await answer(failed_because="") == stays
    several: dict[str, Json] = {"ambiguous": True, "candidates": ["a", "b"]}
    assert await decided("KubeJobFailed", {"job": {}, "resolution": several}) == stays
    assert await decided("KubeJobFailed", {"job": {}, "resolution": {"ambiguous": False}}) == stays


def test_a_job_that_has_ended_ends_no_work() -> None:
    itself = TARGET.model_copy(update={"kind": "Job"})
    deleted = [Change(path="", present={}, intended=None)]
    ran = pod("report-1-x", owner("Job"))
    over = sight(target=itself, thing=FAILED, pods=[ran])
    assert (ended_pods(over, deleted), long_job(over, deleted)) == ([], None)
    running = pod("report-1-y", owner("Job"), phase="Running")
    straggling = sight(target=itself, thing=FAILED, pods=[ran, running])
    assert ended_pods(straggling, deleted) == [running]
    assert long_job(straggling, deleted) == "it belongs to Job x"
    at_work = sight(target=itself, thing=run_of("report-1", 10, ""), pods=[running])
    assert long_job(at_work, deleted) == "it belongs to Job x"


# --- what the agents make of it -----------------------------------------------------------------

OVER = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."


def node(name: str, ready: str = "True", disk: str = "False") -> Obj:
    conditions = [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": disk}]
    return {"metadata": {"name": name}, "status": {"conditions": conditions}}


def test_facts_tell_leftovers_from_what_goes_on() -> None:
    related = {"ReplicaSet": SETS, "Pod": [pod("a"), pod("b", message=OVER)]}
    assert nodes_of(DEPLOYMENT, related) == ["n-1"]
    found = garbage_facts(
        DEPLOYMENT, related, [node("n-1"), node("n-2", disk="True"), node("n-3", "False")]
    )
    assert found == {
        "count": 2,
        "names": ["a", "b"],
        "reasons": ["Evicted"],
        "message": OVER,
        "own_limit": 1,
        "ill_nodes": ["n-2", "n-3"],
    }


def known(**garbage: Json) -> dict[str, Json]:
    """Give a whole Deployment with one evicted pod."""
    litter = {"count": 1, "names": ["a"], "reasons": ["Evicted"], "message": "low", "own_limit": 0}
    return {
        "resolution": {"ambiguous": False},
        "garbage": {**litter, "ill_nodes": [], **garbage},
        "workload": {"kind": "Deployment", "name": "cart", "replicas": 3},
        "rollout": {"in_progress": False},
        "pods": {"total": 3, "failing": 0, "ready": 3, "failing_names": []},
        "pod": {"name": "a"},
    }


async def decided(alert: str, facts: dict[str, Json]) -> tuple[Answer, str]:
    fields = {"id": "a", "cluster": "c", "fingerprint": "f", "status": "firing"}
    times = {"starts_at": "2026-01-01T00:00:00Z", "received_at": "2026-01-01T00:00:00Z"}
    one = Alert.model_validate({**fields, **times, "labels": {"alertname": alert}})
    case = Case("i", 1, "c", True, "s", [one], ())
    choice = await Playbooks.load().decide(
        Findings(case, {**facts, "alert": {"name": alert}}, {}, [])
    )
    assert "could not be followed" not in choice.reason
    return choice.answer, choice.action


@pytest.mark.parametrize("alert", ["KubePodNotReady", "KubePodEvicted", "KubePodFailed"])
async def test_only_leftovers_are_deleted(alert: str) -> None:
    assert await decided(alert, known()) == (Answer.ACT, "delete-failed-pods")
    assert await decided(alert, known(own_limit=1)) == (Answer.ESCALATE, "")
    assert await decided(alert, known(ill_nodes=["n-1"])) == (Answer.ESCALATE, "")
    moving = {**known(), "rollout": {"in_progress": True}}
    assert await decided(alert, moving) != (Answer.ACT, "delete-failed-pods")


@pytest.mark.parametrize("alert", ["KubePodEvicted", "KubePodFailed"])
async def test_a_failed_pod_that_no_node_ended_is_a_record(alert: str) -> None:
    assert await decided(alert, {**known(), "garbage": {}}) == (Answer.ESCALATE, "")
    ill: dict[str, Json] = {"total": 3, "failing": 1, "ready": 2, "failing_names": ["b"]}
    assert await decided(alert, {**known(), "pods": ill}) == (Answer.ESCALATE, "")


TARGET = Target(
    cluster="c", api_version="apps/v1", kind="Deployment", namespace="n", name="x", uid="u"
)
PLACE = {"api_version": "v1", "kind": "Pod", "namespace": "n", "name": "cart-1"}
POD = ObjectReference(**PLACE, uid="u-cart-1")
GONE = [Change(of=POD, path="", present={"reason": "Evicted"}, intended=None)]


def sight(**more: Any) -> Sight:
    given: dict[str, Any] = {"target": TARGET, "thing": {}, "owners": (), "namespace": {}}
    given |= {"owner_annotations": [{}], "replicasets": (), "autoscalers": ()}
    return Sight(**{**given, **more}, workload=Link("apps/v1", "Deployment", {}))


def test_no_process_ends_and_nobody_s_field_changes() -> None:
    limits = {"resources": {"limits": {"nvidia.com/gpu": "8"}}}
    trainer = {**pod(), "spec": {"containers": [limits]}}
    seen = sight(pods=[trainer])
    assert ended_pods(seen, GONE) == []
    assert long_job(seen, GONE) is None
    running = {**trainer, "status": {"phase": "Running"}}
    assert ended_pods(sight(pods=[running]), GONE) == [running]
    another = GONE[0].model_copy(update={"of": POD.model_copy(update={"uid": "u-other"})})
    with pytest.raises(UnansweredError, match="nobody has read what Pod"):
        ended_pods(sight(pods=[running]), [another])
    tracked = {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "app:1"}}}
    assert field_owner(tracked, [], GONE) is None
    assert field_owner(tracked, [], [Change(path="/spec/x", present=1, intended=2)]) is not None
