"""Judgements in the terminal: every rule with its reason, and where two policies differ."""

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tiphys.service.records import AuditEvent
from tiphys.service.telling import plain

if TYPE_CHECKING:  # slow to import, and every command would wait
    from tiphys.policies.verdict import Verdict
    from tiphys.service.replay import Comparison, Difference

_STYLE = {"allowed": "green", "needs_approval": "bold magenta", "denied": "bold red"}


def explanation(view: dict[str, Any], attempt: dict[str, Any]) -> RenderableType:
    """Show every rule's answer in one judged attempt of an incident, as the API gives it."""
    incident, judgement = view["incident"], attempt["judgement"]
    table = Table(box=None, pad_edge=False)
    for column in ("rule", "answer", "why"):
        table.add_column(column, overflow="fold")
    for one in judgement["verdicts"]:
        said = one["verdict"]["verdict"]
        table.add_row(
            one["rule"], Text(_word(said), style=_STYLE[said]), Text(_why(one["verdict"]))
        )
    head = f"{incident['id']}, attempt {attempt['attempt']}"
    if judgement.get("at"):
        head += f", judged at {judgement['at'][:19]}"
    calendars = (
        Text(f"calendar {plain(name, 80)}: sha256 {plain(sha256, 70)}")
        for name, sha256 in (judgement.get("calendars") or {}).items()
    )
    return Group(
        Text(f"{head} by {plain(judgement['policy'], 60)}"),
        *calendars,
        table,
        Text(_summary(view, attempt), style="bold"),
    )


def missing_approvals(view: dict[str, Any], attempt: dict[str, Any]) -> int:
    """Count the people who must still agree to the plan that waits; 0 where none waits."""
    if view["incident"]["state"] != "awaiting_approval":
        return 0
    needs = [v["verdict"] for v in attempt["judgement"]["verdicts"]]
    wanted = max((n.get("people", 1) for n in needs if n["verdict"] == "needs_approval"), default=0)
    return max(0, wanted - len(_given(view, attempt)))


def _given(view: dict[str, Any], attempt: dict[str, Any]) -> set[str]:
    """Give the people who agreed to this very plan."""
    return {
        record["body"]["by"]
        for record in view["timeline"]
        if record["event"] == AuditEvent.APPROVAL_GIVEN
        and record["body"]["digest"] == attempt["plan_digest"]
    }


def _summary(view: dict[str, Any], attempt: dict[str, Any]) -> str:
    verdicts = attempt["judgement"]["verdicts"]
    denials = sum(v["verdict"]["verdict"] == "denied" for v in verdicts)
    needs = [v["verdict"] for v in verdicts if v["verdict"]["verdict"] == "needs_approval"]
    approved = plain(attempt["judgement"].get("approved_by") or "", 200)
    missing = missing_approvals(view, attempt)
    if denials:
        return f"refused by {denials} of {len(verdicts)} rules; no approval changes that"
    if missing:
        by = sorted({who for need in needs for who in need.get("by", ())})
        whom = f", one of them from {', '.join(map(plain, by))}" if by else ""
        return (
            f"waits: {missing} {'approval is' if missing == 1 else 'approvals are'} missing{whom}"
        )
    if needs:
        return f"approved by {approved}" if approved else "needs approval, and waits no longer"
    return f"allowed by all {len(verdicts)} rules"


def _word(verdict: str) -> str:
    return verdict.replace("_", " ")


def _why(verdict: dict[str, Any]) -> str:
    """Give the reason, and whom it wants."""
    who = []
    if verdict.get("people", 1) > 1:
        who.append(f"{verdict['people']} people")
    if verdict.get("by"):
        who.append(f"one of {', '.join(plain(name, 200) for name in verdict['by'])}")
    said = plain(verdict.get("reason", ""), 2000)
    return f"{said} ({'; '.join(who)})" if who else said


# --- two policies ---------------------------------------------------------------------------------


def differences(found: "Comparison") -> RenderableType:
    """Show what two policies answer otherwise, rule by rule."""
    parts: list[RenderableType] = []
    for difference in found.differences:
        parts += _difference(difference)
    parts += [Text(plain(problem, 2000), style="yellow") for problem in found.problems]
    exact = f"; {found.by_old} of them were judged by the first policy" if found.by_old else ""
    parts.append(
        Text(f"{len(found.differences)} of {found.decisions} decisions would differ{exact}")
    )
    return Group(*parts)


def _difference(difference: "Difference") -> list[RenderableType]:
    one = difference.plain()
    head = f"{plain(one['incident'])}, attempt {one['attempt']}, {str(one['at'])[:19]}: "
    answers = Text.assemble(
        head,
        f"{one['action']} on {plain(one['target'])}: ",
        (_word(one["before"]), _STYLE[one["before"]]),
        " → ",
        (_word(one["after"]), _STYLE[one["after"]]),
    )
    rules = [f"  {c.rule}: {_said(c.before)} → {_said(c.after)}" for c in difference.rules]
    return [answers, *map(Text, rules)]


def _said(verdict: "Verdict | None") -> str:
    if verdict is None:
        return "no such rule"
    whole = verdict.model_dump(mode="json")
    why = _why(whole)
    return _word(whole["verdict"]) + (f": {why}" if why else "")
