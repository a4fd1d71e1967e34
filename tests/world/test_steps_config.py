"""update-config against a live API: two writes, each of which may be the last that happens."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tiphys.policies.model import Plan
from tiphys.policies.plan import short_digest
from tiphys.service.conform.runs import plan_on
from tiphys.service.conform.simulated import SandboxWorld
from tiphys.service.conform.trial import Stage
from tiphys.service.conform.trials.update_config import TRIAL
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import settled
from tiphys.service.conform.worlds import closing
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Report, Result, Run, StepName
from tiphys.workflow_templates.cluster import Cluster, Connection, Unreachable
from tiphys.workflow_templates.rollout_restart import RESTART
from tiphys.workflow_templates.update_config import UpdateConfig

PRECHECK, ACT, VERIFY, ROLLBACK = StepName
CONFIG, WORKLOAD = "configmaps/fares", "deployments/cart"


class Killed(BaseException):
    """The step's process ends here."""


class Between(Cluster):
    """The real client; notes each write, and lets something happen before or after the n-th."""

    def __init__(self, connection: Connection, digest: str) -> None:
        super().__init__(connection, digest)
        self.written: list[str] = []
        self.before: dict[int, Callable[[], None]] = {}
        self.after: dict[int, Callable[[], None]] = {}

    def _ask(self, method: str, path: str, **how: Any) -> Any:
        if method != "PATCH":
            return super()._ask(method, path, **how)
        number = len(self.written) + 1
        self.before.pop(number, lambda: None)()
        answer = super()._ask(method, path, **how)
        self.written.append("/".join(path.split("/")[-2:]))
        self.after.pop(number, lambda: None)()
        return answer


@dataclass
class Scene:
    """One workload, its ConfigMap, and a plan for both."""

    stage: Stage
    target: Json
    plan: Plan

    def run(self, plan: Plan | None = None) -> Run:
        plan, world = plan or self.plan, self.stage.world
        token = world.folder / f"{short_digest(plan)}.token"
        token.write_text(world.token(world.actions, "act-update-config"))
        return Run(
            plan=plan,
            digest=short_digest(plan),
            not_after=datetime.now(UTC) + timedelta(minutes=10),
            cluster=Between(Connection(world.wire.url, token, None), short_digest(plan)),
            metrics=None,
            now=lambda: datetime.now(UTC),
            sleep=time.sleep,
        )

    def step(self, step: StepName, run: Run | None = None) -> Report:
        return getattr(UpdateConfig(), step)(run or self.run())

    def config(self) -> Json:
        return self.stage.wire.get(self.stage.place("v1", "ConfigMap", "fares"))

    def workload(self) -> Json:
        return self.stage.wire.get(place_of(self.target))

    @property
    def size(self) -> str:
        return self.config()["data"]["pool-size"]

    @property
    def restarted(self) -> bool:
        notes = self.workload()["spec"]["template"]["metadata"].get("annotations") or {}
        return RESTART in notes

    def marks(self) -> list[str]:
        return [mark.by_annotation(one) for one in (self.config(), self.workload())]

    def merge(self, body: Json) -> None:
        self.stage.wire.patch(self.stage.place("v1", "ConfigMap", "fares"), body)

    def human(self, **spec: Any) -> None:
        self.stage.wire.patch(place_of(self.target), {"spec": spec})

    def killed_after(self, number: int) -> Run:
        """Run act until its process ends after so many writes."""
        run = self.run()

        def die() -> None:
            raise Killed

        writes(run).after[number] = die
        with pytest.raises(Killed):
            self.step(ACT, run)
        return run


def writes(run: Run) -> Between:
    assert isinstance(run.cluster, Between)
    return run.cluster


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxWorld]:
    folder: Path = tmp_path_factory.mktemp("world")
    with closing(SandboxWorld(folder)) as made:
        assert isinstance(made, SandboxWorld)
        yield made


@pytest.fixture
def scene(world: SandboxWorld) -> Scene:
    stage = Stage(world)
    target = TRIAL.build(stage)
    return Scene(stage, target, TRIAL.plan(stage, target))


def test_the_value_comes_first_both_ways_and_both_are_marked(scene: Scene) -> None:
    run, digest = scene.run(), short_digest(scene.plan)
    assert scene.step(PRECHECK, run).result is Result.AS_PLANNED
    assert scene.step(ACT, run).result is Result.ACTED
    assert (scene.size, scene.restarted) == ("40", True)
    assert scene.marks() == [f"{digest}.act"] * 2
    assert scene.step(VERIFY, run).result is Result.VERIFIED
    assert scene.marks() == [f"{digest}.kept"] * 2
    assert scene.step(ROLLBACK, run).result is Result.UNDONE
    assert (scene.size, scene.restarted) == ("20", False)
    assert scene.marks() == [f"{digest}.undone"] * 2
    assert writes(run).written == [CONFIG, WORKLOAD] * 3


def test_what_was_interrupted_between_the_writes_goes_on(scene: Scene) -> None:
    scene.killed_after(1)
    assert (scene.size, scene.restarted) == ("40", False)
    run = scene.run()
    assert scene.step(PRECHECK, run).result is Result.AS_PLANNED
    assert scene.step(ACT, run).result is Result.ACTED
    assert (scene.size, scene.restarted) == ("40", True)
    assert writes(run).written == [WORKLOAD]


def test_what_was_interrupted_between_the_writes_is_put_back(scene: Scene) -> None:
    scene.killed_after(1)
    before = scene.workload()["metadata"]["generation"]
    run = scene.run()
    assert scene.step(ROLLBACK, run).result is Result.UNDONE
    assert (scene.size, scene.restarted) == ("20", False)
    assert scene.workload()["metadata"]["generation"] == before
    assert scene.step(ACT).result is Result.REFUSED
    assert scene.size == "20"


@pytest.mark.parametrize("number", [1, 2])
def test_a_write_without_an_answer_is_looked_up_not_repeated(scene: Scene, number: int) -> None:
    run = scene.run()

    def lost() -> None:
        raise Unreachable("the answer was lost")

    writes(run).after[number] = lost
    scene.step(ACT, run)
    assert writes(run).written == [CONFIG, WORKLOAD]
    assert (scene.size, scene.restarted) == ("40", True)


def test_a_value_set_by_hand_just_before_the_write_is_left_alone(scene: Scene) -> None:
    run = scene.run()
    writes(run).before[1] = lambda: scene.merge({"data": {"pool-size": "30"}})
    assert scene.step(ACT, run).result is Result.REFUSED
    assert (scene.size, scene.restarted) == ("30", False)
    assert scene.step(ROLLBACK).result is Result.NOT_OURS
    assert scene.size == "30"


def test_a_rollout_paused_between_the_writes_is_not_fought_and_the_value_put_back(
    scene: Scene,
) -> None:
    run = scene.run()
    writes(run).after[1] = lambda: scene.human(paused=True)
    report = scene.step(ACT, run)
    assert report.result is Result.CRASHED
    assert report.message.startswith("interrupted: ")
    assert scene.step(PRECHECK).result is Result.CRASHED
    assert scene.step(ROLLBACK).result is Result.UNDONE
    assert (scene.size, scene.restarted) == ("20", False)
    assert scene.workload()["spec"]["paused"] is True


def meddle_with_value(scene: Scene) -> None:
    scene.merge({"data": {"pool-size": "30"}})


def meddle_with_template(scene: Scene) -> None:
    scene.human(template={"metadata": {"annotations": {RESTART: "by-hand"}}})


def remove_mark(scene: Scene) -> None:
    scene.merge({"metadata": {"annotations": {mark.ANNOTATION: None}}})


def remove_config_map(scene: Scene) -> None:
    scene.stage.wire.delete(scene.stage.place("v1", "ConfigMap", "fares"))


@pytest.mark.parametrize(
    ("meddle", "what"),
    [
        (meddle_with_value, "ConfigMap"),
        (meddle_with_template, "Deployment"),
        (remove_mark, "ConfigMap"),
        (remove_config_map, "ConfigMap"),
    ],
)
def test_where_somebody_changed_one_of_the_two_neither_is_put_back(
    scene: Scene, meddle: Callable[[Scene], None], what: str
) -> None:
    assert scene.step(ACT).result is Result.ACTED
    meddle(scene)
    run = scene.run()
    report = scene.step(ROLLBACK, run)
    assert report.result is Result.NOT_OURS
    assert report.message.startswith(what)
    assert writes(run).written == []
    assert scene.restarted


def test_a_value_changed_while_it_is_watched_ends_the_watch(scene: Scene) -> None:
    run = scene.run()
    scene.step(ACT, run)
    meddle_with_value(scene)
    report = scene.step(VERIFY, run)
    assert report.result is Result.NOT_VERIFIED
    assert report.message.startswith("somebody else changed ConfigMap")


def test_a_second_run_may_set_another_value_and_the_first_undoes_nothing_of_it(
    scene: Scene,
) -> None:
    first = scene.run()
    scene.step(ACT, first)
    world, path = scene.stage.world, place_of(scene.target)
    second = plan_on(
        world, settled(world, path), "update-config", 2, configmap="fares", key="pool-size",
        value="30",
    )  # fmt: skip
    refused = scene.step(PRECHECK, scene.run(second))
    assert (refused.result, "another run" in refused.message) == (Result.REFUSED, True)
    assert scene.step(VERIFY, first).result is Result.VERIFIED
    assert scene.step(ACT, scene.run(second)).result is Result.ACTED
    assert scene.step(ROLLBACK, first).result is Result.NOTHING_CHANGED
    assert scene.size == "30"
    assert scene.step(ROLLBACK, scene.run(second)).result is Result.UNDONE
    assert scene.size == "40"
