"""The page for whoever repairs a frozen target: what is there, what was, and commands that hold."""

import asyncio
import json
import subprocess
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import UnansweredError
from tiphys.agents.repair import HIDDEN, Repair, Stands, read_damage, repair_of
from tiphys.policies.model import Change, Check, DecidedBy, ObjectReference, Plan, Target
from tiphys.policies.plan import short_digest, workflow_name
from tiphys.sandbox.patches import PatchType, apply

Obj = dict[str, Any]
FIRST = "/spec/template/spec/containers/0"
HOSTILE = [
    "$(touch owned)",
    "`touch owned`",
    "'; touch owned; '",
    '"; touch owned; "',
    "a\ntouch owned\n",
    "\x1b]0;owned\x07\x1b[2J",
    "--server=https://elsewhere",
    "\\",
    "\u202eelbisivni",
    "!!",
    "\x00",
]


class Cluster:
    """What there is to read: objects by name, or what keeps them from being read."""

    def __init__(self, *things: Obj) -> None:
        self.things = {(one["kind"], one["metadata"]["name"]): one for one in things}
        self.away: set[str] = set()

    async def get(self, _version: str, kind: str, _namespace: str, name: str) -> Any:
        if kind in self.away:
            raise UnansweredError(f"{kind} may not be read")
        return self.things.get((kind, name))


def deployment(image: str = "cart:2", name: str = "cart", **spec: Any) -> Obj:
    containers = [{"name": "main", "image": image}]
    meta = {"name": name, "namespace": "shop", "uid": "u-1", "annotations": {"team": "a"}}
    template = {"spec": {"containers": containers, **spec}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {"replicas": 3, "template": template}}  # fmt: skip


def plan_of(*changes: Change, name: str = "cart", namespace: str = "shop") -> Plan:
    return Plan(
        incident="inc-1",
        attempt=1,
        action="rollout-undo",
        version=1,
        target=Target(
            cluster="c",
            api_version="apps/v1",
            kind="Deployment",
            namespace=namespace,
            name=name,
            uid="u-1",
        ),
        parameters={},
        changes=changes or (IMAGE,),
        check=Check(),
        policy="p",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="playbooks"),
    )


IMAGE = Change(path=f"{FIRST}/image", present="cart:2", intended="cart:1")


def page(plan: Plan, *things: Obj, away: str = "") -> Repair:
    cluster = Cluster(*things)
    cluster.away = {away} - {""}
    book = Notebook(lambda: datetime.now(UTC))
    seen = asyncio.run(read_damage(cluster, plan, book))  # type: ignore[arg-type]
    found = repair_of(plan, [seen], "owner-1")
    assert found is not None
    return found


def marked(thing: Obj, plan: Plan, ending: str = "act") -> Obj:
    thing["metadata"]["annotations"]["tiphys.io/run"] = f"{short_digest(plan)}.{ending}"
    return thing


def words(command: str) -> list[str]:
    """Give what a shell makes of a command."""
    show = 'for word in "$@"; do printf "%s\\0" "$word"; done'
    script = f"kubectl() {{ {show}; }}; {command}"
    out = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    assert out.stderr == b""
    return out.stdout.decode().split("\0")[:-1]


def patch(command: str) -> list[Obj]:
    [body] = [word for word in words(command) if word.startswith("--patch=")]
    return json.loads(body.removeprefix("--patch="))


def repaired(found: Repair, thing: Obj) -> Obj:
    [first, *_] = found.commands
    return apply(deepcopy(thing), patch(first), PatchType.JSON)


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "stands"),
    [("cart:2", Stands.BEFORE), ("cart:1", Stands.LEFT), ("cart:3", Stands.OTHER)],
)
def test_each_field_is_shown_before_left_and_now(image: str, stands: Stands) -> None:
    [field] = page(plan_of(), deployment(image)).fields
    assert (field.place, field.before, field.left, field.now) == (
        f"{FIRST}/image", "cart:2", "cart:1", image,
    )  # fmt: skip
    assert field.stands is stands
    assert field.difference == ("" if image == "cart:2" else f'"cart:2" -> "{image}"')


def test_the_commands_put_back_what_differs_and_only_that() -> None:
    more = Change(path="/spec/template/spec/nodeSelector", present=None, intended={"a": "b"})
    less = Change(path="/spec/minReadySeconds", present=5, intended=None)
    same = Change(path="/spec/replicas", present=3, intended=4)
    plan = plan_of(IMAGE, more, less, same)
    now = marked(deployment("cart:1", nodeSelector={"a": "b"}), plan)
    found = page(plan, now)
    after = repaired(found, now)
    wanted = deployment("cart:2")
    wanted["spec"]["minReadySeconds"] = 5
    assert after == wanted, "the mark is gone too"
    assert "/spec/replicas" not in found.commands[0]
    assert found.commands[-1].startswith("tiphys release target:owner-1 --reason ")
    assert words(found.commands[0])[:5] == [
        "patch", "deployment.v1.apps", "--namespace=shop", "--type=json",
        f"--patch={json.dumps(patch(found.commands[0]), separators=(',', ':'))}",
    ]  # fmt: skip


def test_a_command_fails_on_another_object_and_on_a_value_that_moved_since() -> None:
    plan = plan_of()
    found = page(plan, deployment("cart:1"))
    for moved in (deployment("cart:9"), {**deployment("cart:1")}):
        if moved == deployment("cart:1"):
            moved["metadata"] = {**moved["metadata"], "uid": "u-2"}
        with pytest.raises(Exception, match="test"):
            repaired(found, moved)


def test_where_everything_is_as_before_nothing_is_left_but_the_release() -> None:
    found = page(plan_of(), deployment("cart:2"))
    assert len(found.commands) == 1
    assert found.commands[0].startswith("tiphys release")


@pytest.mark.parametrize("ending", ["act", "back"])
def test_an_unfinished_mark_is_taken_off_and_a_finished_one_stays(ending: str) -> None:
    plan = plan_of()
    now = marked(deployment("cart:2"), plan, ending)
    after = repaired(page(plan, now), now)
    assert "tiphys.io/run" not in after["metadata"]["annotations"]
    for other in ("undone", "kept"):
        assert len(page(plan, marked(deployment("cart:2"), plan, other)).commands) == 1


def test_what_is_gone_or_was_replaced_gets_no_command() -> None:
    other = deployment("cart:1")
    other["metadata"]["uid"] = "u-2"
    for things in ((), (other,)):
        found = page(plan_of(), *things)
        assert [field.stands for field in found.fields] == [Stands.GONE]
        assert len(found.commands) == 1
        assert "is gone" in found.notes[0]


def test_what_cannot_be_read_is_said_and_still_fenced_by_its_uid() -> None:
    found = page(plan_of(), deployment("cart:1"), away="Deployment")
    [field] = found.fields
    assert field.stands is Stands.UNREAD
    assert "could not be read" in found.notes[0]
    assert [one["op"] for one in patch(found.commands[0])] == ["test", "add"]


def test_somebodys_change_is_called_that() -> None:
    assert "ask them before" in page(plan_of(), deployment("cart:7")).notes[0]


def test_several_objects_get_a_command_each() -> None:
    named = ObjectReference(
        api_version="v1", kind="ConfigMap", namespace="shop", name="cart", uid="u-9"
    )
    pod = ObjectReference(api_version="v1", kind="Pod", namespace="shop", name="p", uid="u-8")
    key = Change(of=named, path="/data/mode", present="a", intended="b")
    end = Change(of=pod, path="", present={}, intended=None)
    meta = {"name": "cart", "namespace": "shop", "uid": "u-9"}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"mode": "b"}}
    found = page(plan_of(key, IMAGE, end), deployment("cart:1"), config)
    first, second, _ = found.commands
    assert words(first)[1] == "configmap"
    assert apply(config, patch(first), PatchType.JSON)["data"] == {"mode": "a"}
    assert words(second)[1] == "deployment.v1.apps"
    assert "what the run deleted is not brought back" in found.notes
    assert len(found.fields) == 2


# --- hostile names and values ---------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_value_stays_a_value(text: str, tmp_path: Path) -> None:
    change = Change(path=f"{FIRST}/image", present=text, intended="cart:1")
    now = deployment("cart:1")
    found = page(plan_of(change), now)
    for command in found.commands:
        assert command.isascii()
        assert command.isprintable()
    assert repaired(found, now)["spec"]["template"]["spec"]["containers"][0]["image"] == text
    assert not (tmp_path / "owned").exists()
    assert not Path("owned").exists()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_value_now_stays_a_value(text: str) -> None:
    now = deployment(text)
    assert repaired(page(plan_of(), now), now) == deployment("cart:2")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_stays_a_name_or_gets_no_command(text: str) -> None:
    found = page(plan_of(name=text, namespace=text), deployment("cart:1", name=text))
    [command, _] = found.commands
    assert command.isascii()
    assert command.isprintable()
    if command.startswith("#"):
        assert not (text.isascii() and text.isprintable())
        return
    said = words(command)
    assert said[-2:] == ["--", text]
    assert said[2] == f"--namespace={text}"


def test_a_hostile_path_stays_a_path() -> None:
    path = "/metadata/annotations/x'; touch owned; '\n$(y)"
    change = Change(path=path, present="a", intended=None)
    now = deployment()
    after = repaired(page(plan_of(change), now), now)
    assert after["metadata"]["annotations"]["x'; touch owned; '\n$(y)"] == "a"


# --- secrets --------------------------------------------------------------------------------------


def test_a_secret_that_somebody_set_since_is_neither_shown_nor_tested() -> None:
    path = f"{FIRST}/env"
    change = Change(path=path, present=None, intended=[{"name": "MODE", "value": "a"}])
    now = deployment()
    secret = "hunter2-hunter2"
    env = [{"name": "DB_PASSWORD", "value": secret}]
    now["spec"]["template"]["spec"]["containers"][0]["env"] = env
    found = page(plan_of(change), now)
    assert secret not in found.model_dump_json()
    [field] = found.fields
    assert field.now == HIDDEN
    assert [one["op"] for one in patch(found.commands[0])] == ["test", "remove"]
    assert repaired(found, now) == deployment()


def test_a_secret_is_not_in_the_evidence_either() -> None:
    secret = "postgres://root:hunter2-hunter2@db/cart"
    cluster = Cluster(deployment(secret))
    book = Notebook(lambda: datetime.now(UTC))
    seen = asyncio.run(read_damage(cluster, plan_of(), book))  # type: ignore[arg-type]
    assert "hunter2" not in seen.model_dump_json()


def test_a_huge_value_is_named_by_its_size() -> None:
    found = page(plan_of(), deployment("x" * 5_000))
    assert found.fields[0].now == "[5002 bytes]"
    assert len(found.commands[0]) < 1_000


# --- which evidence -------------------------------------------------------------------------------


def test_the_last_look_counts_and_other_evidence_does_not() -> None:
    plan, book = plan_of(), Notebook(lambda: datetime.now(UTC))
    looks = [
        asyncio.run(read_damage(Cluster(deployment(image)), plan, book))  # type: ignore[arg-type]
        for image in ("cart:1", "cart:8")
    ]
    other = looks[0].model_copy(update={"question": "get Deployment shop/cart"})
    found = repair_of(plan, [*looks, other], "o")
    assert found
    assert found.fields[0].now == "cart:8"
    assert found.run == workflow_name(plan)
    assert repair_of(plan, [other], "o") is None
    spoilt = looks[0].model_copy(update={"answer": {"run": 1}})
    assert repair_of(plan, [spoilt], "o") is None
