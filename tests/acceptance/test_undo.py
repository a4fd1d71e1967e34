"""A healing is undone by a person's word: the Deployment is as it was, or as healed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

IMAGE = "registry.example/shop/checkout:"
PATIENCE = 120.0
"""Seconds; two runs, one after the other."""


def image(drama: Any) -> str:
    found = drama.stage.world.store.get("Deployment", "shop", "checkout")
    return found["spec"]["template"]["spec"]["containers"][0]["image"].removeprefix(IMAGE)


async def healed(drama: Any, until: Callable[..., Any]) -> dict[str, Any]:
    """Let the bad release be undone; gives its incident's view once it has closed."""
    await drama.play.strike()
    await drama.until_recorded("run_ended", PATIENCE)

    async def closed() -> Any:
        listed = await drama.stage.get("/api/incidents", state=["closed"])
        return listed and await drama.view(listed[0]["id"])

    view = await until(closed, PATIENCE)
    assert view["incident"]["outcome"] == "verified"
    assert image(drama) == "1.7.3"
    return view


async def asked(drama: Any, view: dict[str, Any]) -> str:
    """Ask for the undo of the incident's run on the command line; gives the new incident."""
    run = view["attempts"][-1]["workflow"]
    nameless = await drama.command("undo", run)
    assert nameless.code == 2
    assert "--reason" in nameless.err
    said = await drama.command("undo", run[:20], "--by", "ada", "--reason", "the migration ran")
    assert said.code == 0, said.err
    assert "undo of rollout-undo on Deployment shop/checkout" in said.out
    return said.out.split(":")[0]


async def at_rest(drama: Any, until: Callable[..., Any], incident: str) -> dict[str, Any]:
    async def ended() -> Any:
        view = await drama.view(incident)
        return view if view["incident"]["state"] in {"closed", "escalated"} else None

    return await until(ended, PATIENCE)


async def test_a_healing_is_undone_and_the_deployment_is_as_before(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("bad-release", tmp_path) as drama:
        view = await healed(drama, until)
        before = drama.stage.world.store.get("Deployment", "shop", "checkout")["spec"]
        drama.stage.world.behaviours.clear()  # the migration has been run
        incident = await asked(drama, view)
        ended = await at_rest(drama, until, incident)
        assert ended["incident"]["state"] == "closed", ended["incident"]["reason"]
        assert ended["incident"]["outcome"] == "verified"
        assert image(drama) == "1.8.0"
        plan = ended["attempts"][0]["plan"]
        assert plan["undoes"] == view["attempts"][-1]["workflow"]
        assert plan["decided_by"]["reasoner"] == "human"
        assert plan["decided_by"]["note"] == "ada: the migration ran"
        first = view["attempts"][-1]["plan"]["changes"]
        turned = [(c["path"], c["present"], c["intended"]) for c in plan["changes"]]
        assert turned == [(c["path"], c["intended"], c["present"]) for c in first]
        after = drama.stage.world.store.get("Deployment", "shop", "checkout")["spec"]
        after["template"]["spec"]["containers"][0]["image"] = f"{IMAGE}1.7.3"
        assert after == before, "nothing but the image"
        assert len(drama.workflows) == 2
        [told] = await drama.records("undo_asked")
        assert (told["actor"], told["incident_id"]) == ("ada", view["incident"]["id"])
        assert {w.user for w in drama.touches} == {
            "system:serviceaccount:tiphys-actions:act-rollout-undo"
        }, "no identity but the action's own"

        again = await drama.command("undo", plan["undoes"], "--reason", "once more")
        assert again.code == 0, again.err
        refused = await at_rest(drama, until, again.out.split(":")[0])
        assert refused["incident"]["state"] == "escalated"
        assert "does not bear the mark" in refused["incident"]["reason"]
        other = await drama.command(
            "undo", ended["attempts"][0]["workflow"], "--reason", "and back again"
        )
        assert other.code == 2
        assert "planned anew" in other.err
        assert len(drama.workflows) == 2


async def test_an_undo_that_does_no_good_leaves_it_as_the_healing_did(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("bad-release", tmp_path) as drama:
        view = await healed(drama, until)
        ended = await at_rest(drama, until, await asked(drama, view))
        assert ended["incident"]["state"] == "escalated"
        assert ended["incident"]["outcome"] == "rolled_back"
        assert image(drama) == "1.7.3"


async def test_what_somebody_changed_since_stays_as_they_made_it(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("bad-release", tmp_path) as drama:
        view = await healed(drama, until)
        containers = [{"name": "app", "image": f"{IMAGE}1.7.4"}]
        merge = {"spec": {"template": {"spec": {"containers": containers}}}}
        drama.stage.world.store.patch(
            "Deployment", "shop", "checkout", merge, manager="kubectl-set"
        )
        ended = await at_rest(drama, until, await asked(drama, view))
        assert ended["incident"]["state"] == "escalated"
        assert "somebody has changed what" in ended["incident"]["reason"]
        assert image(drama) == "1.7.4"
        assert len(drama.workflows) == 1


async def test_a_run_that_cannot_be_undone_is_refused_with_a_sentence(
    on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("wedged-pod", tmp_path) as drama:
        await drama.play.strike()
        ended = await drama.until_recorded("run_ended", PATIENCE)
        run = ended["body"]["workflow"]
        said = await drama.command("undo", run, "--reason", "why not")
        assert said.code == 2
        assert "restart-pod cannot be undone" in said.err
        nobody = await drama.command("undo", "tiphys-none", "--reason", "a guess")
        assert nobody.code == 2
        assert "no such run" in nobody.err
