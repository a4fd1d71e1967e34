"""What the gate is told of a ConfigMap that is changed beside the target."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from tiphys.agents.beside_facts import changed_beside, read_related
from tiphys.agents.notebook import Notebook
from tiphys.agents.plan_secrets import secrets_in
from tiphys.agents.ports import UnansweredError
from tiphys.agents.resolver import Resolver
from tiphys.agents.target_facts import Use, see, target_facts
from tiphys.policies.model import Change, Object, ObjectReference, Target, TargetFacts
from tiphys.workflow_templates.config_guards import VALUES
from tiphys.workflow_templates.update_config import UpdateConfig, UpdateConfigParameters

Obj = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
WANTED = UpdateConfigParameters(configmap="fares", key="pool-size", value="40")
TARGET = Target(
    cluster="c", api_version="apps/v1", kind="Deployment", namespace="shop", name="cart", uid="u1"
)


def config(**meta: Any) -> Obj:
    notes = {f"{VALUES}/pool-size": "20\n40", **meta.pop("annotations", {})}
    labels = {"tiphys.io/heal": "enabled", **meta.pop("labels", {})}
    named = {"namespace": "shop", "name": "fares", "uid": "u2", "resourceVersion": "5"}
    return {
        "metadata": {**named, "annotations": notes, "labels": labels, **meta},
        "data": {"pool-size": "20"},
    }


def deployment(**notes: str) -> Obj:
    env = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "fares", "key": "pool-size"}}}
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), 1)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "cart", "uid": "u1", "annotations": notes},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "cart"}},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "a", "env": [env]}]}},
        },
        "status": counts,
    }


class Cluster:
    """One Deployment and one ConfigMap, which may be read by name and not listed."""

    def __init__(self, config_map: Obj | None, workload: Obj | None = None) -> None:
        self.things: dict[tuple[str, str], Obj | None] = {
            ("ConfigMap", "fares"): config_map,
            ("Deployment", "cart"): workload or deployment(),
            ("Namespace", "shop"): {"metadata": {"name": "shop"}},
        }

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        del api_version, namespace
        return self.things.get((kind, name))

    async def list(self, api_version: str, kind: str, *_: str, **__: str) -> Sequence[Object]:
        del api_version
        if kind == "ConfigMap":
            raise UnansweredError("Kubernetes: 403")
        found = [thing for (of, _), thing in self.things.items() if of == kind]
        return [thing for thing in found if thing]

    async def logs(self, *_: Any, **__: Any) -> str:
        return ""


async def facts(config_map: Obj, workload: Obj | None = None) -> TargetFacts:
    cluster = Cluster(config_map, workload)
    sight = await see(cluster, Resolver(cluster, Notebook(lambda: NOW)), TARGET)
    action = UpdateConfig()
    use = Use(action, WANTED, lambda thing, near: action.changes(thing, near, WANTED))
    return await target_facts(cluster, sight, use, True, NOW)


async def test_it_is_read_by_its_name_and_never_listed() -> None:
    found = await facts(config())
    assert found.changes[0].place == "ConfigMap shop/fares /data/pool-size"
    assert (found.field_owner, found.open_mark, found.annotations) == (None, None, {})
    related = await read_related(Cluster(None), UpdateConfig(), WANTED, "shop")
    assert related["ConfigMap"] == []


@pytest.mark.parametrize(
    ("meta", "owner"),
    [
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}, "Flux (apps)"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "app:1"}}, "Argo CD (app:1)"),
        (
            {
                "managedFields": [
                    {
                        "manager": "argocd-controller",
                        "fieldsV1": {"f:data": {"f:pool-size": {}}},
                    }
                ]
            },
            "argocd-controller",
        ),
        (
            {
                "managedFields": [
                    {"manager": "argocd-controller", "fieldsV1": {"f:data": {"f:other": {}}}}
                ]
            },
            None,
        ),
        (
            {"ownerReferences": [{"apiVersion": "x/v1", "kind": "Shop", "name": "s", "uid": "u"}]},
            "Shop s (its operator)",
        ),
    ],
)
async def test_whoever_owns_its_key_is_named(meta: Obj, owner: str | None) -> None:
    assert (await facts(config(**meta))).field_owner == owner


async def test_hands_off_and_another_runs_mark_on_it_count() -> None:
    left_alone = await facts(config(annotations={"tiphys.io/hands-off": "sale"}))
    assert left_alone.annotations["tiphys.io/hands-off"] == "sale"
    nearer = await facts(
        config(annotations={"tiphys.io/hands-off": "sale"}),
        deployment(**{"tiphys.io/hands-off": "x"}),
    )
    assert nearer.annotations["tiphys.io/hands-off"] == "x"
    marked = await facts(config(annotations={"tiphys.io/run": f"{'b' * 40}.act"}))
    assert marked.open_mark == f"{'b' * 40}.act"


def setting(key: str, present: str, intended: str = "40") -> Change:
    of = ObjectReference(
        api_version="v1", kind="ConfigMap", namespace="shop", name="fares", uid="u2"
    )
    return Change(of=of, path=f"/data/{key}", present=present, intended=intended)


def test_an_object_that_is_deleted_or_not_changed_is_not_among_them() -> None:
    gone = setting("x", "1").model_copy(update={"path": ""})
    related = {"ConfigMap": [config()]}
    assert changed_beside(related, [gone]) == []
    [found] = changed_beside(related, [setting("x", "1")])
    assert [change.of for change in found.changes] == [None]


def test_a_key_or_a_value_that_looks_like_a_secret_is_not_planned() -> None:
    assert secrets_in([setting("pool-size", "20")], deployment()) == []
    assert secrets_in([setting("db-password", "a", "b")], deployment()) == ["db-password"]
    address = "postgres://shop:s3cr3tpw@db/shop"
    assert secrets_in([setting("database", address)], deployment()) == ["/data/database"]
    assert secrets_in([setting("value", "20", address)], deployment()) == ["/data/value"]
