"""The kit that proves actions, on every action of the catalogue: what it proves holds."""

import pytest

from tiphys.service.conform.properties import Property, properties
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.trials import TRIALS
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates.catalogue import every

pytestmark = pytest.mark.together
CASES = [(trial, one) for trial in TRIALS.values() for one in properties(trial)]


def test_every_action_has_a_trial() -> None:
    assert set(TRIALS) == {action.name for action in every()}


@pytest.mark.parametrize(
    ("trial", "one"), CASES, ids=[f"{trial.action}: {one.name}" for trial, one in CASES]
)
def test_it_is_proven(world: World, trial: Trial, one: Property) -> None:
    one.prove(Stage(world), trial)
