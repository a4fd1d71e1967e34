"""The commands in a frozen target's incident put everything back, and on either cluster no more."""

import json
import shlex
from datetime import UTC, datetime
from typing import cast

import pytest

from tiphys.agents.notebook import Notebook
from tiphys.agents.repair import Repair, Stands, read_damage, repair_of
from tiphys.policies.model import Plan
from tiphys.service.conform.snapshot import take
from tiphys.service.conform.steps import Steps
from tiphys.service.conform.trial import Stage
from tiphys.service.conform.trials import TRIALS
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.worlds import World
from tiphys.service.kubernetes_reader import KubernetesReader
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Result, StepName

pytestmark = pytest.mark.together
JSON_PATCH = "application/json-patch+json"


def page(world: World, plan: Plan) -> Repair:
    """Read as the agents do, and make the page."""
    book = Notebook(lambda: datetime.now(UTC))
    seen = world.ask(lambda api: read_damage(KubernetesReader(api), plan, book))
    found = repair_of(plan, [seen], "owner")
    assert found is not None
    return found


def patch_of(command: str) -> list[Json]:
    """Give the patch of a `kubectl patch` command."""
    [body] = [word for word in shlex.split(command) if word.startswith("--patch=")]
    return cast("list[Json]", json.loads(body.removeprefix("--patch=")))


@pytest.mark.parametrize("action", ["raise-memory-limit", "rollout-restart", "rollout-undo"])
def test_what_a_run_left_is_put_back_by_hand(world: World, action: str) -> None:
    trial, stage = TRIALS[action], Stage(world)
    target = trial.build(stage)
    plan, path = trial.plan(stage, target), place_of(target)
    before = take(world.wire, stage.namespace).roots().objects
    assert Steps(world, plan).run(StepName.ACT).result is Result.ACTED
    found = page(world, plan)
    assert {field.stands for field in found.fields} == {Stands.LEFT}
    *patches, _ = found.commands
    [command] = patches
    assert shlex.split(command)[-1] == plan.target.name
    world.wire.patch(path, patch_of(command), JSON_PATCH)
    assert take(world.wire, stage.namespace).roots().objects == before
    assert not mark.by_annotation(world.wire.get(path)), "other actions may come near again"
    answer = world.wire.ask("PATCH", path, patch_of(command), JSON_PATCH)
    assert answer.status in {409, 422}, "the same command a second time finds other values"
    assert len(page(world, plan).commands) == 1
