"""What needs a person's word gets it once, for one plan, for a while."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiphys.sandbox.scenario import Reference

SEARCH = Reference(kind="Deployment", namespace="shop", name="search")
ASK_FIRST = {"rules": {"risk": {"low": "approve", "medium": "approve", "high": "approve"}}}


async def test_an_approved_plan_is_launched_once(
    on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("gpu-training", tmp_path) as drama:
        await drama.play.strike()
        asked = await drama.until_state("awaiting_approval")
        incident = asked["incident"]["id"]
        assert not drama.workflows
        digest = asked["attempts"][0]["plan_digest"]

        other = await drama.command("approve", incident, "--by", "ada", "--digest", "0" * 12)
        assert other.code == 2
        assert "the plan has changed" in other.err
        first = await drama.command("approve", incident, "--by", "ada", "--digest", digest[:12])
        assert first.code == 0, first.err
        second = await drama.command("approve", incident, "--by", "bob")
        assert second.code == 2
        assert "nothing to approve" in second.err

        intent = await drama.until_recorded("launch_intended")
        assert intent["body"]["approved_by"] == "ada"
        assert intent["body"]["plan"] == digest, "what was approved is what is launched"
        given = await drama.records("approval_given")
        assert [record["actor"] for record in given] == ["ada"]
        await drama.until_recorded("run_ended")
        assert len(drama.workflows) == 1
        assert [act.operation for act in drama.acts] == ["DELETE"]


async def test_a_denied_plan_is_in_that_persons_hands(
    on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("gpu-training", tmp_path) as drama:
        await drama.play.strike()
        asked = await drama.until_state("awaiting_approval")
        incident = asked["incident"]["id"]
        denied = await drama.command(
            "deny", incident, "--by", "grace", "--reason", "a checkpoint is due at six"
        )
        assert denied.code == 0, denied.err
        view = await drama.view(incident)
        assert view["incident"]["state"] == "acknowledged"
        assert view["incident"]["acknowledged_by"] == "grace"
        assert "a checkpoint is due at six" in view["incident"]["reason"]
        late = await drama.command("approve", incident, "--by", "ada")
        assert late.code == 2
        assert "acknowledged" in late.err
        assert await drama.records("approval_refused")
        assert not await drama.records("approval_given", "launch_intended")
        assert not drama.workflows


async def test_an_approval_is_void_when_the_target_has_moved(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("overload", tmp_path, policy=ASK_FIRST) as drama:
        await drama.play.strike()
        asked = await drama.until_state("awaiting_approval")
        incident = asked["incident"]["id"]
        assert asked["attempts"][0]["plan"]["changes"][0]["present"] == 2
        # Somebody else takes a replica away before the approval comes.
        drama.stage.world.edit(SEARCH, {"spec": {"replicas": 1}})
        approved = await drama.command("approve", incident, "--by", "ada")
        assert approved.code == 0, approved.err
        void = await drama.until_recorded("approval_void")
        assert void["incident_id"] == incident

        async def asked_again() -> dict[str, Any] | None:
            view = await drama.view(incident)
            waits = view["incident"]["state"] == "awaiting_approval"
            return view if waits and view["incident"]["attempt"] == 2 else None

        again = await until(asked_again)
        first, second = again["attempts"]
        assert second["plan"]["changes"][0]["present"] == 1
        assert second["plan_digest"] != first["plan_digest"]
        assert not drama.workflows, "the old approval started nothing"

        approved = await drama.command("approve", incident, "--by", "ada")
        assert approved.code == 0, approved.err
        intent = await drama.until_recorded("launch_intended")
        assert intent["body"]["plan"] == second["plan_digest"]


async def test_a_plan_that_nobody_approves_in_time_is_escalated(
    on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage(
        "gpu-training", tmp_path, policy={"approval": {"expiry_seconds": 1}}
    ) as drama:
        await drama.play.strike()
        view = await drama.until_state("escalated")
        assert "nobody approved in time" in view["incident"]["reason"]
        await drama.until_recorded("paged")
        late = await drama.command("approve", view["incident"]["id"], "--by", "ada")
        assert late.code == 2
        assert "nothing to approve" in late.err
        assert not drama.workflows
