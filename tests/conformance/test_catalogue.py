"""The kit that proves actions, on every action of the catalogue: what it proves holds.

On a real cluster a sample: each property on one action in turn. `make conform-cluster` asks all.
"""

import os

import pytest

from tiphys.service.conform.properties import Property, properties
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.trials import TRIALS
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates.catalogue import every

CASES = [(trial, one) for trial in TRIALS.values() for one in properties(trial)]


def kind_of(name: str) -> str:
    """Give what properties that differ by action have in common."""
    return name.partition(": ")[0].partition(" without ")[0]


def sample() -> set[tuple[str, str]]:
    """Choose, for each kind of property, the actions in turn; each has its own refusals."""
    chosen: set[tuple[str, str]] = set()
    kinds = list(dict.fromkeys(kind_of(one.name) for _, one in CASES))
    for number, kind in enumerate(kinds):
        of_kind = [(trial.action, one.name) for trial, one in CASES if kind_of(one.name) == kind]
        own = {action: (action, name) for action, name in reversed(of_kind)}
        many = len(of_kind) > len(own)
        chosen |= {*own.values()} if many else {of_kind[number % len(of_kind)]}
    return chosen


SAMPLE = sample()


def test_every_action_has_a_trial() -> None:
    assert set(TRIALS) == {action.name for action in every()}


def test_the_sample_has_every_kind_and_every_action() -> None:
    assert {kind_of(name) for _, name in SAMPLE} == {kind_of(one.name) for _, one in CASES}
    assert {action for action, _ in SAMPLE} == set(TRIALS)


@pytest.mark.together
@pytest.mark.parametrize(
    ("trial", "one"), CASES, ids=[f"{trial.action}: {one.name}" for trial, one in CASES]
)
def test_it_is_proven(world: World, trial: Trial, one: Property) -> None:
    if world.real and (trial.action, one.name) not in SAMPLE and "TIPHYS_CONFORM" not in os.environ:
        pytest.skip("not in the sample; make conform-cluster asks all")
    one.prove(Stage(world), trial)
