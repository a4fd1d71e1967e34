"""A person has an action done by hand: asked, approved by another, done, verified, recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

ASK_FIRST = {"rules": {"risk": {"low": "approve", "medium": "approve", "high": "approve"}}}
PATIENCE = 120.0


def replicas(drama: Any) -> int:
    found = drama.stage.world.store.get("Deployment", "shop", "checkout")
    return int(found["spec"]["replicas"])


async def until_state(drama: Any, until: Callable[..., Any], incident: str, *states: str) -> Any:
    async def there() -> Any:
        view = await drama.view(incident)
        return view if view["incident"]["state"] in states else None

    return await until(there, PATIENCE)


async def test_an_action_is_done_by_hand_once_another_person_agrees(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("bad-release", tmp_path, policy=ASK_FIRST) as drama:
        before = replicas(drama)
        words = ("run", "scale-workload", "deployment/shop/checkout", "--set")
        ada = ("--by", "ada", "--reason", "a sale begins")
        said = await drama.command(*words, f"replicas={before + 1}", *ada)
        assert said.code == 0, said.err
        assert "scale-workload on Deployment shop/checkout" in said.out
        incident = said.out.split(":")[0]
        assert f"tiphys incidents show {incident}" in said.out
        again = await drama.command(*words, f"replicas={before + 1}", *ada)
        assert again.code == 2
        assert f"{incident} is about scale-workload" in again.err

        view = await until_state(drama, until, incident, "awaiting_approval", "escalated")
        assert view["incident"]["state"] == "awaiting_approval", view["incident"]["reason"]
        assert drama.workflows == []
        own = await drama.command("approve", incident, "--by", "ada")
        assert own.code == 2
        assert "somebody else must approve it" in own.err
        other = await drama.command("approve", incident, "--by", "bo")
        assert other.code == 0, other.err

        view = await until_state(drama, until, incident, "closed", "escalated")
        assert view["incident"]["state"] == "closed", view["incident"]["reason"]
        assert view["incident"]["outcome"] == "verified"
        assert replicas(drama) == before + 1
        plan = view["attempts"][0]["plan"]
        assert plan["decided_by"] == {
            **plan["decided_by"], "reasoner": "human", "note": "ada: a sale begins",
        }  # fmt: skip
        assert plan["target"]["uid"], "read from the cluster"
        [told] = await drama.records("run_asked")
        assert (told["actor"], told["incident_id"]) == ("ada", incident)
        assert {w.user for w in drama.touches} == {
            "system:serviceaccount:tiphys-actions:act-scale-workload"
        }, "no identity but the action's own"


async def test_what_can_never_be_is_refused_in_a_sentence(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("bad-release", tmp_path) as drama:
        for words, why in (
            (("delete-all", "deployment/shop/checkout"), "there are cordon-drain-node, "),
            (("scale-workload", "deployment/shop/checkout"), "replicas: Field required"),
            (("scale-workload", "checkout"), "a target is KIND/NAMESPACE/NAME"),
            (("scale-workload", "node/n1", "--set", "replicas"), "NAME=VALUE"),
        ):
            said = await drama.command("run", *words, "--reason", "why not")
            assert said.code == 2, said.out
            assert why in said.err
        assert (await drama.command("run", "scale-workload", "node/n1")).code == 2
        assert await drama.records("run_asked") == []

        gone = ("run", "rollout-restart", "deployment/shop/nobody", "--reason", "a slip")
        said = await drama.command(*gone)
        assert said.code == 0, said.err
        view = await until_state(drama, until, said.out.split(":")[0], "escalated")
        assert "there is no Deployment shop/nobody" in view["incident"]["reason"]
        assert drama.workflows == []
