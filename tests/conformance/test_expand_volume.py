"""expand-volume in Argo's pods: a larger claim and nothing else, or the truth about a stuck one."""

import pytest
from runs_made import fly

from tiphys.policies.model import Outcome
from tiphys.service.conform.runs import HOPELESS, plan_on, publish_all
from tiphys.service.conform.storage import bound_claim, has
from tiphys.service.conform.trial import Stage
from tiphys.service.conform.wire import Answer, Json, place, place_of
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.quantities import amount

pytestmark = pytest.mark.together
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
NAME = "expand-volume"
CHOSEN = {"percent": 150, "ceiling_gib": 100}


def asking(size: str) -> Json:
    return {"spec": {"resources": {"requests": {"storage": size}}}}


def test_the_request_rises_and_nothing_else_changes(world: World) -> None:
    """The API server writes 1024Mi as 1Gi; taken for another value it would be somebody else's."""
    target = bound_claim(Stage(world), "2Gi")
    flown = fly(world, plan_on(world, target, NAME, **CHOSEN))
    flown.ends_as(Outcome.VERIFIED)
    after = world.wire.get(place_of(target))
    assert after["status"]["capacity"]["storage"] == "3Gi"
    assert after["metadata"]["annotations"][mark.ANNOTATION] == f"{flown.digest}.kept"
    assert after["spec"] == {**target["spec"], "resources": {"requests": {"storage": "3Gi"}}}


def test_an_expansion_that_hangs_freezes_the_target(world: World) -> None:
    """Nobody is its driver: what it asked for is never there, and is never taken back."""
    target = bound_claim(Stage(world), "2Gi", driver=False)
    plan = plan_on(world, target, NAME, **CHOSEN)
    flown = fly(world, plan, publish_all(world, variant="-hopeless", share=HOPELESS))
    seen = flown.ends_as(Outcome.ROLLBACK_FAILED)
    assert flown.results() == {
        PRECHECK: Result.AS_PLANNED,
        ACT: Result.ACTED,
        VERIFY: Result.NOT_VERIFIED,
        ROLLBACK: Result.NOT_UNDONE,
    }
    assert "its expansion hangs" in seen.steps[-1].message
    after = world.wire.get(place_of(target))
    assert after["spec"]["resources"]["requests"]["storage"] == "3Gi"
    assert after["metadata"]["annotations"][mark.ANNOTATION] == f"{flown.digest}.act"


def test_what_the_api_server_lets_a_claim_ask_for(world: World) -> None:
    """What planning, and the end of a run, take for granted."""
    stage = Stage(world)
    target = bound_claim(stage, "2Gi")
    path = place_of(target)
    world.wire.patch(path, asking("3Gi"))
    has(stage, path, "3Gi")
    less = world.wire.ask("PATCH", path, asking("2Gi"), "application/merge-patch+json")
    assert (less.status, less.reason) == (422, "Invalid")
    assert "can not be less than status.capacity" in less.message
    of = place("storage.k8s.io/v1", "StorageClass", "", target["spec"]["storageClassName"])
    world.wire.patch(of, {"allowVolumeExpansion": False})
    merge = "application/merge-patch+json"
    # Admission hears of a class as every watcher does: a little later.
    more = world.until(
        "it is refused",
        lambda: world.wire.ask("PATCH", path, asking("4Gi"), merge, dryRun="All"),
        lambda answer: answer.status != 200,
    )
    assert (more.status, more.reason) == (403, "Forbidden")
    assert "the storageclass that provisions the pvc must support resize" in more.message
    moved = {"spec": {"accessModes": ["ReadWriteMany"]}}
    other = world.wire.ask("PATCH", path, moved, "application/merge-patch+json")
    assert (other.status, other.reason) == (422, "Invalid")


def test_what_has_not_got_what_it_asked_for_may_ask_for_less(world: World) -> None:
    """So a human can end an expansion that hangs; but never with what the claim had before."""
    path = place_of(bound_claim(Stage(world), "2Gi", driver=False))
    world.wire.patch(path, asking("4Gi"))
    world.wire.patch(path, asking("3Gi"))
    back = world.wire.ask("PATCH", path, asking("2Gi"), "application/merge-patch+json")
    assert (back.status, back.reason) == (422, "Invalid")


def test_a_quota_counts_what_claims_ask_for(world: World) -> None:
    stage = Stage(world)
    target = bound_claim(stage, "2Gi")
    of = f"{target['spec']['storageClassName']}.storageclass.storage.k8s.io/requests.storage"
    meta = {"name": "tight", "namespace": stage.namespace}
    hard = {"requests.storage": "5Gi", of: "2560Mi"}
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}}
    quota = place_of(world.wire.create(body))

    def used() -> Json:
        return (world.wire.get(quota).get("status") or {}).get("used") or {}

    counted = world.until("it is counted", used, lambda found: len(found) == 2)
    assert {name: amount(use) for name, use in counted.items()} == dict.fromkeys(hard, 2 << 30)
    path = place_of(target)

    def more() -> Answer:
        """Admission learns of a quota some time after it has been counted."""
        media = "application/merge-patch+json"
        return world.wire.ask("PATCH", path, asking("3Gi"), media, dryRun="All")

    refused = world.until("it counts", more, lambda seen: seen.status != 200)
    assert (refused.status, refused.reason) == (403, "Forbidden")
    assert "exceeded quota: tight" in refused.message
    world.wire.patch(path, asking("2560Mi"))
