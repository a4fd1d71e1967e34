"""Decisions on record: explained rule by rule, and judged again by other policies, exactly."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Incident, Risk
from tiphys.policies.parse import built_in, built_in_text, parse
from tiphys.sandbox.loopback import serving
from tiphys.service import api
from tiphys.service.main import app
from tiphys.service.replay import Comparison, RecordedDecision, compare
from tiphys.service.views import Views

NIGHT = """
custom:
  - name: quiet-hours
    expression: action.risk == "low"
    message: nothing but low risk
    effect: ask
    people: 2
    by: [sre]
"""
DEMO = built_in_text("demo")


def views_of(bench: Any) -> Views:
    return Views(bench.database, bench.audit, bench.incidents, bench.cases, bench.runs)


async def export(bench: Any) -> list[str]:
    return [line async for line in views_of(bench).decisions()]


async def many_decisions(bench: Any, target: Any) -> list[Incident]:
    """One launched, one that waits, one refused, one approved, one about which nothing is done."""
    launched = await bench.launching("pod shop/a", target=target("a"))
    waits = await bench.launching("pod shop/b", target=target("b"), risk=Risk.HIGH)
    bench.scout.target = {"annotations": {"tiphys.io/hands-off": "mine"}}
    refused = await bench.launching("pod shop/c", target=target("c"))
    bench.scout.target = {}
    approved = await bench.launching("pod shop/d", target=target("d"), risk=Risk.HIGH)
    await bench.approvals.approve(approved.id, by="ada", reason="")
    approved = await bench.run(bench.decide, approved)
    return [launched, waits, refused, approved, await bench.watched()]


async def test_judged_again_by_the_same_policy_nothing_differs(bench: Any, target: Any) -> None:
    *judged, _ = await many_decisions(bench, target)
    lines = await export(bench)
    assert sorted(json.loads(line)["incident"] for line in lines) == sorted(i.id for i in judged)
    found = compare(lines, bench.policy, bench.policy)
    assert (found.decisions, found.by_old) == (4, 4)
    assert not found.problems
    assert not found.differences
    for line in lines:
        decision = RecordedDecision.model_validate_json(line)
        assert decision.judgement.at is not None
        assert decision.facts.incident
        assert decision.facts.incident.id == decision.incident
        assert decision.judged_by(bench.policy) == decision.judgement, "whole, approval and all"


async def test_what_always_asks_is_replayed_as_the_catalogue_has_it(bench: Any) -> None:
    """The proposal on record does not say so; the gate takes the catalogue's word."""
    asked = await bench.launching(action="expand-volume")
    assert asked.state == State.AWAITING_APPROVAL
    assert "always-ask: " in asked.reason
    found = compare(await export(bench), bench.policy, bench.policy)
    assert (found.by_old, found.problems, found.differences) == (1, [], [])


async def test_what_would_differ_is_listed_rule_by_rule(bench: Any, target: Any) -> None:
    launched, waits, refused, approved, _ = await many_decisions(bench, target)
    stricter = parse(DEMO + NIGHT, "new.yaml")
    found = compare(await export(bench), bench.policy, stricter)
    told = {d.decision.incident: d for d in found.differences}
    assert launched.id not in told
    assert refused.id not in told, "refused is refused, whoever else would be asked"
    assert waits.id in told, "two people, not one"
    assert approved.id in told
    [change] = told[waits.id].rules
    assert change.rule == "custom/quiet-hours"
    assert change.before is None
    assert change.after is not None
    assert change.after.model_dump()["people"] == 2
    never = parse(
        DEMO.replace("cooldown:\n    seconds: 2\n    max_seconds: 2", "opted-in:\n    value: x"),
        "new.yaml",
    )
    found = compare(await export(bench), bench.policy, never)
    assert {d.plain()["after"] for d in found.differences} == {"denied"}
    assert len(found.differences) == 3
    assert {change.rule for d in found.differences for change in d.rules} == {"opted-in"}


async def test_rules_that_have_changed_under_a_policy_are_named(bench: Any) -> None:
    await bench.launching("pod shop/cart-1")
    [line] = await export(bench)
    decision = json.loads(line)
    verdicts = decision["judgement"]["verdicts"]
    [one] = [one for one in verdicts if one["rule"] == "protected-namespaces"]
    one["verdict"] = {"verdict": "denied", "reason": "then"}
    found = compare([json.dumps(decision)], bench.policy, bench.policy)
    [problem] = found.problems
    assert problem.startswith(f"{decision['incident']}, attempt 1 does not replay exactly: ")
    assert problem.endswith("see protected-namespaces")
    other = replace(bench.policy, name="another")
    assert not compare([json.dumps(decision)], other, other).problems


async def test_what_cannot_be_judged_again_is_named(bench: Any) -> None:
    await bench.launching("pod shop/cart-1")
    [line] = await export(bench)
    timeless = json.loads(line)
    timeless["judgement"]["at"] = None
    lines = ["{}", "nonsense", json.dumps(timeless), "", line]
    found: Comparison = compare(lines, bench.policy, bench.policy)
    assert found.decisions == 4
    assert found.by_old == 1
    assert [problem.split(":")[0] for problem in found.problems] == [
        "line 1 is no recorded decision",
        "line 2 is no recorded decision",
        f"{timeless['incident']}, attempt 1 was judged before the time was kept",
    ]


# --- the command line, through the API ------------------------------------------------------------


@pytest.fixture
def tiphys(bench: Any) -> Any:
    """Runs a command against the API of this bench."""

    async def run(*words: str) -> Result:
        served = FastAPI()
        ledger = bench.ledger
        office = api.Office(
            views=views_of(bench),
            ledger=ledger,
            approvals=bench.approvals,
            audit=bench.audit,
            holds=bench.holds,
            run_stops=bench.run_stops,
            undos=bench.undos,
            wishes=bench.wishes,
            wake=lambda: None,
            stop=None,
            token=None,
        )
        api.install(served, office)
        async with serving(served) as url:
            environment = {"TIPHYS_URL": url, "COLUMNS": "200"}
            return await asyncio.to_thread(
                CliRunner().invoke, app, ["policy", *words], env=environment
            )

    return run


def unfolded(answer: Result) -> str:
    """Give what was printed, whatever the terminal's width made of it."""
    return " ".join(answer.stdout.split())


async def test_explain_tells_every_rule_and_what_is_missing(bench: Any, tiphys: Any) -> None:
    incident = await bench.asked()
    answer = await tiphys("explain", incident.id)
    assert answer.exit_code == 0, answer.output
    assert f"{incident.id}, attempt 1, judged at " in answer.stdout
    for rule in built_in().settings:
        assert str(rule) in answer.stdout
    assert "high risk needs approval" in answer.stdout
    assert "waits: 1 approval is missing" in answer.stdout
    told = json.loads((await tiphys("explain", incident.id, "--json")).stdout)
    assert told["missing_approvals"] == 1
    assert len(told["verdicts"]) == len(built_in().settings)


async def test_explain_counts_who_must_still_agree(bench: Any, tiphys: Any) -> None:
    bench.policy = parse(DEMO + NIGHT, "two.yaml")
    incident = await bench.asked()
    answer = await tiphys("explain", incident.id)
    assert "nothing but low risk (2 people; one of sre)" in unfolded(answer)
    assert "waits: 2 approvals are missing, one of them from sre" in answer.stdout


async def test_explain_tells_what_was_refused_approved_and_allowed(
    bench: Any, target: Any, tiphys: Any
) -> None:
    launched, _, refused, approved, watched = await many_decisions(bench, target)
    assert "allowed by all" in (await tiphys("explain", launched.id)).stdout
    told = unfolded(await tiphys("explain", refused.id))
    assert "is annotated tiphys.io/hands-off: 'mine'" in told
    assert "refused by 1 of" in told
    assert "approved by ada" in (await tiphys("explain", approved.id)).stdout
    answer = await tiphys("explain", watched.id)
    assert answer.exit_code != 0
    assert f"{watched.id} has not been judged: it is {State.MONITORING}" in str(answer.exception)


async def test_diff_reads_the_record_or_a_file(
    bench: Any, target: Any, tiphys: Any, tmp_path: Path
) -> None:
    _, waits, *_ = await many_decisions(bench, target)
    old, new, saved = tmp_path / "old.yaml", tmp_path / "new.yaml", tmp_path / "saved"
    old.write_text(DEMO)
    new.write_text(DEMO + NIGHT)
    live = await tiphys("diff", str(old), str(new))
    assert live.exit_code == 0, live.output
    assert "2 of 4 decisions would differ; 4 of them were judged by the first policy" in live.stdout
    assert f"{waits.id}, attempt 1" in live.stdout
    assert "custom/quiet-hours: no such rule → needs approval: nothing but low risk" in live.stdout
    assert f"4 decisions in {saved}" in " ".join(
        (await tiphys("decisions", str(saved))).stdout.split()
    )
    kept = await tiphys("diff", str(old), str(new), "--from", str(saved))
    assert kept.stdout == live.stdout
    plain = await tiphys("diff", str(old), str(new), "--from", str(saved), "--json")
    assert len(json.loads(plain.stdout)["differences"]) == 2
    gone = await tiphys("diff", str(old), str(new), "--from", str(tmp_path / "gone"))
    assert "gone: No such file" in str(gone.exception)
