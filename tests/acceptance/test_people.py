"""People at the command line of a real service: their own tokens, and one of them alone."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

ROLES = {"ada": "approver", "bob": "approver", "vic": "viewer"}
PAGED_WITHIN = 30.0
"""Seconds, also for a review that was closed first; the agents look every five."""


@pytest.fixture
async def tokens(tiphys: Callable[..., Awaitable[Any]], tmp_path: Path) -> dict[str, str]:
    """Make everybody's token and the file, as docs/people.md says."""
    made: dict[str, str] = {}
    lines = ["format: tiphys/people/v1", "people:"]
    for name, role in ROLES.items():
        told = await tiphys("people", "token", name)
        assert told.code == 0, told.err
        made[name] = told.out.splitlines()[0]
        [line] = [line for line in told.out.splitlines() if "sha256" in line]
        lines += [f"  - name: {name}", f'    roles: [{{role: {role}, namespaces: ["*"]}}]']
        lines += ["    tokens:", line]
    (tmp_path / "people.yaml").write_text("\n".join(lines))
    checked = await tiphys("people", "check", str(tmp_path / "people.yaml"))
    assert checked.code == 0, checked.err
    assert "3 people, 3 tokens" in checked.out
    return made


async def test_each_acts_with_their_own_token_and_one_alone_is_reviewed(
    on_stage: Callable[..., Any],
    tiphys: Callable[..., Awaitable[Any]],
    until: Callable[..., Awaitable[Any]],
    tokens: dict[str, str],
    tmp_path: Path,
) -> None:
    given = {"TIPHYS_PEOPLE": str(tmp_path / "people.yaml")}
    policy = {"rules": {"risk": {"high_people": 2}}}
    async with on_stage("gpu-training", tmp_path, policy=policy, environment=given) as drama:

        async def says(who: str, *words: str) -> Any:
            environment = {**drama.stage.command_environment(), "TIPHYS_TOKEN": tokens[who]}
            return await tiphys(*words, environment=environment)

        await drama.play.strike()
        asked = await drama.until_state("awaiting_approval")
        incident = asked["incident"]["id"]
        looked = await says("vic", "incidents", "show", incident)
        assert looked.code == 0, looked.err
        refused = await says("vic", "approve", incident)
        assert (refused.code, "has not the role approver" in refused.err) == (2, True)
        forged = await says("bob", "approve", incident, "--by", "ada")
        assert (forged.code, "you are bob, not ada" in forged.err) == (2, True)
        alone = await says("ada", "break-glass", incident, "--reason", "nobody answers")
        assert alone.code == 0, alone.err
        assert "approved by ada, who broke the glass: nobody answers" in alone.out
        intent = await drama.until_recorded("launch_intended")
        assert intent["body"]["approved_by"] == "ada"

        listed = await says("vic", "reviews")
        assert "approved alone by ada" in listed.out
        [review] = await drama.stage.get("/api/reviews")
        own = await says("ada", "reviews", "close", review["plan_digest"][:12], "--reason", "ok")
        assert (own.code, "somebody else must look" in own.err) == (2, True)
        closed = await says(
            "bob", "reviews", "close", review["plan_digest"][:12], "--reason", "right call"
        )
        assert closed.code == 0, closed.err
        assert "nothing waits for a review" in (await says("vic", "reviews")).out
        log_file = drama.stage.directory / "serve.log"

        async def told() -> bool:
            return "broke the glass" in log_file.read_text()

        await until(told, PAGED_WITHIN)
        log = log_file.read_text()
        for token in tokens.values():
            assert token not in log


async def test_a_node_is_drained_when_two_different_people_say_so(
    on_stage: Callable[..., Any],
    tiphys: Callable[..., Awaitable[Any]],
    tokens: dict[str, str],
    tmp_path: Path,
) -> None:
    given = {"TIPHYS_PEOPLE": str(tmp_path / "people.yaml")}
    policy = {"rules": {"risk": {"high_people": 2}}}
    async with on_stage("read-only-node", tmp_path, policy=policy, environment=given) as drama:

        async def says(who: str, *words: str) -> Any:
            environment = {**drama.stage.command_environment(), "TIPHYS_TOKEN": tokens[who]}
            return await tiphys(*words, environment=environment)

        await drama.play.strike()
        asked = await drama.until_state("awaiting_approval")
        incident, digest = asked["incident"]["id"], asked["attempts"][0]["plan_digest"]
        first = await says("ada", "approve", incident, "--digest", digest[:12])
        assert first.code == 0, first.err
        assert "is awaiting_approval: 1 of 2: ada; one more is needed. Proposed: " in first.out
        again = await says("ada", "approve", incident)
        assert (again.code, "ada has approved this plan already" in again.err) == (2, True)
        assert not await drama.records("launch_intended")
        second = await says("bob", "approve", incident)
        assert second.code == 0, second.err
        intent = await drama.until_recorded("launch_intended")
        assert intent["body"]["approved_by"] == "ada, bob"
        assert intent["body"]["plan"] == digest, "what both saw is what is launched"
        given_by = [record["actor"] for record in await drama.records("approval_given")]
        assert given_by == ["ada", "bob"]
