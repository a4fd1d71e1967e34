"""update-config: what it plans and refuses, who else may read the ConfigMap, what guards let by."""

from typing import Any

import pytest

from tiphys.policies.model import ObjectReference, Risk
from tiphys.sandbox.admission import refused_by
from tiphys.sandbox.patches import PatchType, apply
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.config_guards import VALUES, listed
from tiphys.workflow_templates.config_use import EVERY_KEY, keys_of
from tiphys.workflow_templates.mark import annotating
from tiphys.workflow_templates.pointers import operations
from tiphys.workflow_templates.rollout_restart import RolloutRestart, RolloutRestartParameters
from tiphys.workflow_templates.update_config import UpdateConfig, UpdateConfigParameters

Obj = dict[str, Any]
DIGEST = "a" * 40
WANTED = UpdateConfigParameters(configmap="fares", key="pool-size", value="40")
BY_KEY = {"name": "SIZE", "valueFrom": {"configMapKeyRef": {"name": "fares", "key": "pool-size"}}}


def pods(**spec: Any) -> Obj:
    """Give a pod's spec whose only container takes the key."""
    return {"containers": [{"name": "main", "image": "cart:2", "env": [BY_KEY]}], **spec}


def workload(kind: str = "Deployment", uid: str = "u-cart", **spec: Any) -> Obj:
    names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    daemons = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")
    wanted: Obj = {} if kind == "DaemonSet" else {"replicas": 2}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"namespace": "shop", "name": uid.removeprefix("u-"), "uid": uid},
        "spec": {**wanted, "template": {"metadata": {}, "spec": pods()}, **spec},
        "status": dict.fromkeys(daemons if kind == "DaemonSet" else names, 2),
    }


def config(values: str = "20\n40\n", **more: Any) -> Obj:
    meta = {
        "namespace": "shop",
        "name": "fares",
        "uid": "u-fares",
        "resourceVersion": "7",
        "labels": {"tiphys.io/heal": "enabled"},
        "annotations": {f"{VALUES}/pool-size": values},
    }
    data = {"pool-size": "20", "currency": "EUR"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data, **more}


def owned(name: str, by: str, **more: Any) -> Obj:
    owner = {"apiVersion": "apps/v1", "kind": "X", "name": by, "uid": by, "controller": True}
    return {"metadata": {"name": name, "uid": name, "ownerReferences": [owner]}, **more}


def planned(
    target: Obj | None = None, config_map: Obj | None = None, **related: list[Obj]
) -> list[tuple[str, str, Any, Any]]:
    around = {"ConfigMap": [config_map or config()], **related}
    found = UpdateConfig().changes(target or workload(), around, WANTED)
    return [(c.of.kind if c.of else "", c.path, c.present, c.intended) for c in found]


# --- planning -----------------------------------------------------------------------------------


def test_another_config_map_is_not_taken_for_the_one_that_is_asked_for() -> None:
    beside = config()
    beside["metadata"] |= {"name": "beta", "uid": "u-beta"}
    around = {"ConfigMap": [beside, config()]}
    change, _ = UpdateConfig().changes(workload(), around, WANTED)
    assert (change.of and change.of.uid) == "u-fares"
    with pytest.raises(NotApplicableError, match="there is no ConfigMap fares"):
        planned(config_map=beside)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_it_plans_one_key_and_then_the_restart(kind: str) -> None:
    target = workload(kind)
    first, *rest = planned(target)
    assert first == ("ConfigMap", "/data/pool-size", "20", "40")
    restart = RolloutRestart().changes(target, {}, RolloutRestartParameters())
    assert rest == [("", c.path, c.present, c.intended) for c in restart]
    [change, _] = UpdateConfig().changes(target, {"ConfigMap": [config()]}, WANTED)
    assert change.of == ObjectReference(
        api_version="v1", kind="ConfigMap", namespace="shop", name="fares", uid="u-fares"
    )


def test_it_is_high_risk_and_says_what_becomes_of_what() -> None:
    assert UpdateConfig().risk(workload(), WANTED) is Risk.HIGH
    told = UpdateConfig().blast_radius(workload(), WANTED)
    assert told.startswith("Key pool-size of ConfigMap shop/fares becomes 40; nothing else")
    assert "All 2 pods of Deployment shop/cart are replaced" in told


def without(key: str) -> Obj:
    made = config()
    del made["data"][key]
    return made


def labelled(**labels: str) -> Obj:
    made = config()
    made["metadata"]["labels"] = labels
    return made


@pytest.mark.parametrize(
    ("config_map", "why"),
    [
        (without("pool-size"), "has no key pool-size"),
        (without("pool-size") | {"binaryData": {"pool-size": "MjA="}}, "has no key pool-size"),
        (config(data={"pool-size": "40"}), "has that value under pool-size already"),
        (config(immutable=True), "is immutable"),
        (labelled(), "did not opt in"),
        (labelled(**{"tiphys.io/heal": "yes"}), "did not opt in"),
        (config(""), "does not list that value in its annotation values.tiphys.io/pool-size"),
        (config("20"), "does not list that value"),
        (config("20,40"), "does not list that value"),
        (config("20\n 40"), "does not list that value"),
        (config("40\n50"), "does not list the present value of pool-size"),
    ],
)
def test_it_refuses_a_config_map_that_may_not_be_set_so(config_map: Obj, why: str) -> None:
    with pytest.raises(NotApplicableError, match=why) as refused:
        planned(config_map=config_map)
    assert "20" not in str(refused.value)


def test_no_value_of_the_config_map_stands_in_a_refusal() -> None:
    with pytest.raises(NotApplicableError) as refused:
        planned(config_map=config(data={"pool-size": "hunter2"}))
    assert "hunter2" not in str(refused.value)


def test_it_refuses_a_config_map_that_is_not_there_or_not_taken() -> None:
    with pytest.raises(NotApplicableError, match="there is no ConfigMap fares"):
        UpdateConfig().changes(workload(), {"ConfigMap": []}, WANTED)
    target = workload()
    target["spec"]["template"]["spec"] = {"containers": [{"name": "main"}]}
    with pytest.raises(NotApplicableError, match="do not take key pool-size of ConfigMap fares"):
        planned(target)


def test_it_refuses_what_rollout_restart_refuses() -> None:
    with pytest.raises(NotApplicableError, match="the rollout is paused"):
        planned(workload(paused=True))


@pytest.mark.parametrize(
    "given",
    [
        {"key": "../x"},
        {"key": ""},
        {"key": "a/b"},
        {"configmap": "Fares"},
        {"configmap": "a/b"},
        {"value": ""},
        {"value": "a\nb"},
        {"value": "x" * 257},
        {"value": 40},
        {"other": "x"},
    ],
)
def test_its_parameters_are_bounded(given: Obj) -> None:
    whole = {"configmap": "fares", "key": "pool-size", "value": "40"}
    with pytest.raises(ValueError, match="validation error"):
        UpdateConfigParameters.model_validate(whole | given)


# --- who takes of it ----------------------------------------------------------------------------

FROM = {"containers": [{"name": "main", "envFrom": [{"configMapRef": {"name": "fares"}}]}]}
MOUNTED = {"volumes": [{"name": "x", "configMap": {"name": "fares"}}]}
ITEMS = {"volumes": [{"name": "x", "configMap": {"name": "fares", "items": [{"key": "mode"}]}}]}
PROJECTED = {"volumes": [{"projected": {"sources": [{"configMap": {"name": "fares"}}]}}]}
SOME = {"projected": {"sources": [{"configMap": {"name": "fares", "items": [{"key": "mode"}]}}]}}
INIT = {"initContainers": [{"name": "init", "env": [BY_KEY]}]}
OTHER = {"containers": [{"name": "main", "envFrom": [{"configMapRef": {"name": "other"}}]}]}


@pytest.mark.parametrize(
    ("spec", "keys"),
    [
        (pods(), {"pool-size"}),
        (INIT, {"pool-size"}),
        (FROM, {EVERY_KEY}),
        (MOUNTED, {EVERY_KEY}),
        (PROJECTED, {EVERY_KEY}),
        (ITEMS, {"mode"}),
        ({"volumes": [SOME]}, {"mode"}),
        ({"ephemeralContainers": FROM["containers"]}, {EVERY_KEY}),
        (OTHER, set()),
        ({}, set()),
    ],
)
def test_every_way_in_which_a_pod_takes_of_a_config_map_is_seen(spec: Obj, keys: set[str]) -> None:
    assert keys_of(spec, "fares") == keys
    target = workload()
    target["spec"]["template"]["spec"] = spec
    if keys & {"pool-size", EVERY_KEY}:
        assert planned(target)
    else:
        with pytest.raises(NotApplicableError, match="do not take key"):
            planned(target)


def job(**status: Any) -> Obj:
    return {**workload("Job", "u-sums"), "status": status}


CRON = {"metadata": {"name": "nightly", "uid": "u-n"}, "spec": {
    "jobTemplate": {"spec": {"template": {"spec": FROM}}}}}  # fmt: skip
FAILED = {"conditions": [{"type": "Failed", "status": "True"}]}
LONE = {"metadata": {"name": "lone", "uid": "u-l"}, "spec": pods()}


@pytest.mark.parametrize(
    ("related", "who"),
    [
        ({"Deployment": [workload(), workload(uid="u-till")]}, "Deployment till"),
        ({"StatefulSet": [workload("StatefulSet", "u-db")]}, "StatefulSet db"),
        ({"DaemonSet": [workload("DaemonSet", "u-log")]}, "DaemonSet log"),
        ({"Job": [job(active=1)]}, "Job sums"),
        ({"CronJob": [CRON]}, "CronJob nightly"),
        ({"Pod": [LONE]}, "Pod lone"),
        ({"Pod": [owned("odd-1", "u-odd", spec=pods())]}, "Pod odd-1"),
        (
            {"Pod": [owned("p", "set", spec=pods())], "ReplicaSet": [owned("set", "u-till")]},
            "Pod p",
        ),
    ],
)
def test_it_refuses_a_config_map_that_anything_else_takes_of(related: Obj, who: str) -> None:
    with pytest.raises(NotApplicableError, match=f"is not its own: {who} take of it"):
        planned(**related)


@pytest.mark.parametrize(
    "related",
    [
        {"Deployment": [workload()]},
        {"Pod": [owned("p", "set", spec=pods())], "ReplicaSet": [owned("set", "u-cart")]},
        {"Pod": [owned("p", "u-cart", spec=pods())]},
        {"Pod": [{**LONE, "status": {"phase": "Succeeded"}}]},
        {"Pod": [{**LONE, "status": {"phase": "Failed"}}]},
        {"Pod": [{**LONE, "spec": OTHER}]},
        {"Job": [job(**FAILED)]},
    ],
)
def test_its_own_pods_and_what_has_ended_do_not_count(related: Obj) -> None:
    assert planned(**related)


# --- the guards ---------------------------------------------------------------------------------


def patched(before: Obj, *steps: Obj, ending: str = "act") -> Obj:
    return apply(before, [*steps, *annotating(before, f"{DIGEST}.{ending}")], PatchType.JSON)


def refusals(before: Obj, after: Obj) -> list[str]:
    facts = {"object": after, "oldObject": before, "run": f"tiphys-{DIGEST}"}
    return refused_by(UpdateConfig(), "/configmaps", facts)


def test_what_it_does_and_undoes_is_let_through() -> None:
    before = config()
    change = ("/data/pool-size", "20", "40")
    acted = patched(before, *operations([change]))
    assert refusals(before, acted) == []
    kept = patched(acted, ending="kept")
    assert refusals(acted, kept) == []
    for seen in (acted, kept):
        undone = patched(seen, *operations([("/data/pool-size", "40", "20")]), ending="undone")
        assert refusals(seen, undone) == []
        assert undone["data"] == before["data"]


@pytest.mark.parametrize("values", ["", "20", "40", "20\n40", "20\n40\n", "\n20\n\n40", "20\r\n40"])
@pytest.mark.parametrize("opted", ["enabled", "disabled", ""])
@pytest.mark.parametrize("present", ["20", "40", "", "odd"])
def test_planning_and_admission_keep_to_the_same_list(
    values: str, opted: str, present: str
) -> None:
    before = config(values, data={"pool-size": present})
    before["metadata"]["labels"] = {"tiphys.io/heal": opted} if opted else {}
    step = {"op": "replace", "path": "/data/pool-size", "value": "40"}
    let_through = refusals(before, patched(before, step)) == []
    try:
        plans = bool(planned(config_map=before))
    except NotApplicableError:
        plans = False
    # A write that changes no value needs no list; it is never planned.
    assert plans == (let_through and present != "40")
    fits = present != "40" and {present, "40"} <= {*listed(before, "pool-size")}
    assert plans == (opted == "enabled" and fits)
