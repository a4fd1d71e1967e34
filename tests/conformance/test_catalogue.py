"""The kit that proves actions, on every action of the catalogue: what it proves holds.

On a real cluster a sample: each property on one action in turn. `make conform-cluster` asks all.
On the sandbox every action is killed at every moment, in one way each time in turn; TIPHYS_CONFORM
asks for all ways.
"""

import os

import pytest

from tiphys.service.conform.every import every_property
from tiphys.service.conform.kills import POINTS, Kind, sampled
from tiphys.service.conform.kit import kind_of
from tiphys.service.conform.properties import Property
from tiphys.service.conform.trial import Trial, staged
from tiphys.service.conform.trials import TRIALS, module_of
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates.catalogue import every

ALL = "TIPHYS_CONFORM" in os.environ
KILLINGS = sampled(sorted(TRIALS))
CASES = [
    (trial, one)
    for trial in TRIALS.values()
    for one in every_property(trial)
    if ALL or not one.kills or (trial.action, one.name) in KILLINGS
]


def sample() -> set[tuple[str, str]]:
    """Choose, for each kind of property, the actions in turn; each has its own refusals."""
    chosen = sampled(sorted(TRIALS), few=True)
    found = [(trial.action, one.name) for trial, one in CASES if not one.kills]
    for number, kind in enumerate(dict.fromkeys(kind_of(name) for _, name in found)):
        of_kind = [(action, name) for action, name in found if kind_of(name) == kind]
        own = {action: (action, name) for action, name in reversed(of_kind)}
        many = len(of_kind) > len(own)
        chosen |= {*own.values()} if many else {of_kind[number % len(of_kind)]}
    return chosen


SAMPLE = sample()


def test_every_action_has_a_trial() -> None:
    missing = [module_of(one.name) for one in every() if one.name not in TRIALS]
    assert not missing, "each of these modules is to give a TRIAL"
    assert {name: trial.action for name, trial in TRIALS.items()} == {n: n for n in TRIALS}


def test_the_sample_has_every_kind_and_every_action() -> None:
    assert {kind_of(name) for _, name in SAMPLE} == {kind_of(one.name) for _, one in CASES}
    assert {action for action, _ in SAMPLE} == set(TRIALS)


def test_the_killings_have_every_moment_and_every_kind() -> None:
    for found in (KILLINGS, sampled(sorted(TRIALS), few=True)):
        names = {name for _, name in found}
        assert {name.partition(": ")[0] for name in names} == {f"killed {p.name}" for p in POINTS}
        assert {name.partition(": ")[2] for name in names} == {kind.value for kind in Kind}
    assert len(KILLINGS) == len(TRIALS) * len(POINTS)


def cases(*, alone: bool) -> pytest.MarkDecorator:
    found = [(trial, one) for trial, one in CASES if one.alone is alone]
    ids = [f"{trial.action}: {one.name}" for trial, one in found]
    return pytest.mark.parametrize(("trial", "one"), found, ids=ids)


@pytest.mark.together
@cases(alone=False)
def test_it_is_proven(world: World, trial: Trial, one: Property) -> None:
    _prove(world, trial, one)


@cases(alone=True)
def test_it_is_proven_alone(world: World, trial: Trial, one: Property) -> None:
    _prove(world, trial, one)


def _prove(world: World, trial: Trial, one: Property) -> None:
    if world.real and not ALL and (trial.action, one.name) not in SAMPLE:
        pytest.skip("not in the sample; make conform-cluster asks all")
    with staged(world, trial.action) as stage:
        one.prove(stage, trial)
