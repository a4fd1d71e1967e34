"""The service's own readers and hands, each with an identity of its own."""

from datetime import UTC, datetime

import pytest

from tiphys.agents.ports import UnansweredError
from tiphys.service.argo import Argo, Submission
from tiphys.service.conform.wire import Json, place
from tiphys.service.conform.workloads import (
    CRASH,
    EXIT_CODE,
    LAST_WORDS,
    LINES,
    NO_IMAGE,
    container,
)
from tiphys.service.conform.worlds import World, rule
from tiphys.service.errors import ArgoUnavailableError, WorkflowRefusedError
from tiphys.service.kubernetes_reader import KubernetesReader
from tiphys.service.stop_switch import StopSwitch

WORKFLOW = ("argoproj.io/v1alpha1", "Workflow")


def pod(namespace: str, *containers: Json, name: str = "alone") -> Json:
    meta = {"name": name, "namespace": namespace, "labels": {"app": "alone"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [*containers]},
    }


def started(world: World, path: str) -> Json:
    def runs(found: Json) -> bool:
        statuses = found.get("status", {}).get("containerStatuses") or [{}]
        return "running" in statuses[0].get("state", {})

    return world.until(f"{path} runs", lambda: world.wire.get(path), runs)


# --- the agents' reader -------------------------------------------------------------------------


def test_the_reader_gets_lists_and_discovers(world: World) -> None:
    space = world.namespace()
    for name in ("one", "two", "three"):
        meta = {"name": name, "namespace": space, "labels": {"mine": "yes"}}
        world.wire.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})

    async def read(api: object) -> list[object]:
        reader = KubernetesReader(api)  # type: ignore[arg-type]
        listed = await reader.list("v1", "ConfigMap", space, "mine=yes")
        return [
            [(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in listed],  # type: ignore[index]
            await reader.get("v1", "ConfigMap", space, "none"),
            list(await reader.list(*WORKFLOW, space)),
            list(await reader.list("nowhere.io/v1", "Thing", space)),
            await reader.get("nowhere.io/v1", "Thing", space, "one"),
        ]

    maps = [("v1", "ConfigMap", name) for name in ("one", "three", "two")]
    assert world.ask(read) == [maps, None, [], [], None]


def test_a_reader_without_the_right_is_told_so_and_does_not_see_an_empty_cluster(
    world: World,
) -> None:
    space = world.namespace()
    me = world.identity(space, "reader", rule("", "pods", "get", "list"))
    assert world.ask(lambda api: KubernetesReader(api).list("v1", "Pod", space), me) == []
    for question in (
        lambda api: KubernetesReader(api).list("apps/v1", "Deployment", space),
        lambda api: KubernetesReader(api).get("v1", "Node", "", "any"),
        lambda api: KubernetesReader(api).logs(space, "p", "", previous=False, tail_lines=5),
    ):
        with pytest.raises(UnansweredError, match="403"):
            world.ask(question, me)


@pytest.mark.together
def test_logs_are_read_from_their_end_and_from_before_the_crash(world: World) -> None:
    space = world.namespace()
    for name, fare in (("well", "ready"), ("sick", CRASH), ("stuck", NO_IMAGE)):
        world.wire.create(pod(space, container(world, fare), name=name))
    started(world, place("v1", "Pod", space, "well"))

    def log(name: str, *, previous: bool = False, lines: int = 50, which: str = "main") -> str:
        return world.ask(
            lambda api: KubernetesReader(api).logs(
                space, name, which, previous=previous, tail_lines=lines
            )
        )

    def waiting(found: Json) -> bool:
        state = (found["status"].get("containerStatuses") or [{}])[0].get("state", {})
        return "BackOff" in state.get("waiting", {}).get("reason", "")

    world.until("well has spoken", lambda: log("well").splitlines(), lambda seen: seen == LINES)
    assert log("well", lines=2).splitlines() == LINES[-2:]
    assert log("well", which="").splitlines() == LINES, "one container needs no name"
    assert log("well", previous=True) == ""
    assert log("gone") == ""
    crashed = place("v1", "Pod", space, "sick")
    found = world.until("sick waits", lambda: world.wire.get(crashed), waiting)
    [status] = found["status"]["containerStatuses"]
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    ended = status["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (EXIT_CODE, "Error")
    world.until(
        "sick has restarted",
        lambda: log("sick", previous=True).splitlines(),
        lambda seen: seen == [*LINES, LAST_WORDS],
    )
    stuck = place("v1", "Pod", space, "stuck")
    world.until("stuck waits", lambda: world.wire.get(stuck), waiting)
    assert log("stuck") == ""


def test_a_limit_of_bytes_cuts_a_log(world: World) -> None:
    space = world.namespace()
    world.wire.create(pod(space, container(world)))
    path = place("v1", "Pod", space, "alone")
    started(world, path)
    whole = "".join(f"{line}\n" for line in LINES)
    world.until(
        "it has spoken",
        lambda: world.wire.ask("GET", path + "/log", container="main").body,
        lambda seen: seen == whole,
    )
    cut = world.wire.ask("GET", path + "/log", container="main", limitBytes="10")
    assert (cut.status, cut.body) == (200, whole[:10])


def test_events_tell_why_a_pod_crashes(world: World) -> None:
    space = world.namespace()
    made = world.wire.create(pod(space, container(world, CRASH)))
    selector = f"involvedObject.uid={made['metadata']['uid']}"

    def events() -> list[tuple[str, str]]:
        found = world.ask(
            lambda api: KubernetesReader(api).list("v1", "Event", space, field_selector=selector)
        )
        return [(str(e["type"]), str(e["reason"])) for e in found]

    world.until("a BackOff Event", events, lambda seen: ("Warning", "BackOff") in seen)


# --- the stop switch ----------------------------------------------------------------------------


def test_the_stop_switch_is_engaged_read_and_released(world: World) -> None:
    space = world.namespace()
    now = datetime.now(UTC)
    gateway = world.identity(space, "gateway", rule("", "configmaps", "create", "get", "list"))

    def engaged() -> object:
        return world.ask(lambda api: StopSwitch(api, space).read(), gateway)

    assert engaged().engaged is False  # type: ignore[union-attr]
    name = world.ask(
        lambda api: StopSwitch(api, space).engage(by="me", reason="an exercise", now=now), gateway
    )
    facts = engaged()
    assert (facts.engaged, facts.reason) == (True, "an exercise")  # type: ignore[union-attr]
    with pytest.raises(ArgoUnavailableError, match="403"):
        world.ask(lambda api: StopSwitch(api, space).release(), gateway)
    assert world.ask(lambda api: StopSwitch(api, space).release()) == [name]
    assert engaged().engaged is False  # type: ignore[union-attr]
    nobody = world.identity(space, "nobody")
    assert world.ask(lambda api: StopSwitch(api, space).read(), nobody) is None


# --- the launcher's hands -----------------------------------------------------------------------


def submission(name: str, **parameters: str) -> Submission:
    given = {"plan": "cGxhbg", **parameters}
    return Submission(name, template="no-such-template", parameters=given, incident="inc-1")


def test_a_workflow_is_created_once_and_adopted_when_it_is_the_same(world: World) -> None:
    # Not where Argo looks: nothing runs, and nothing changes what was created.
    space = world.namespace()
    launcher = world.identity(
        space, "launcher", rule("argoproj.io", "workflows", "create", "get", "patch")
    )

    def create(what: Submission) -> bool:
        return world.ask(lambda api: Argo(api, space).create(what), launcher)

    first = submission("tiphys-one")
    assert create(first) is True
    assert create(first) is False, "409: the very same is adopted"
    with pytest.raises(WorkflowRefusedError, match="another Workflow"):
        create(submission("tiphys-one", plan="b3RoZXI"))
    listed = world.wire.items(place(*WORKFLOW, space))
    assert [one["metadata"]["name"] for one in listed] == ["tiphys-one"]
    assert world.ask(lambda api: Argo(api, space).get("none"), launcher) is None
    world.ask(lambda api: Argo(api, space).stop("tiphys-one"), launcher)
    stopped = world.ask(lambda api: Argo(api, space).get("tiphys-one"), launcher)
    assert stopped is not None
    assert stopped["spec"] == first.body(space)["spec"] | {"shutdown": "Stop"}
    assert create(first) is False, "a stopped Workflow is still ours"


def test_a_launcher_without_the_right_is_refused_and_one_without_a_token_waits(
    world: World,
) -> None:
    space = world.namespace()
    nobody = world.identity(space, "nobody")
    with pytest.raises(WorkflowRefusedError, match="403"):
        world.ask(lambda api: Argo(api, space).create(submission("tiphys-one")), nobody)
    with pytest.raises(ArgoUnavailableError, match="401"):
        world.ask(lambda api: Argo(api, space).create(submission("a")), world.bearer("wrong"))
    with pytest.raises(WorkflowRefusedError, match="404"):
        world.ask(lambda api: Argo(api, "no-such-space").create(submission("tiphys-one")))
