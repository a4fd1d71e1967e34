"""The on-call agent: is the alert real, and is it ours to look at?

Invariants: a source that does not answer means a human is told, never that all is well; an empty
answer counts as "no longer true" only while the metrics behind the expression still have data.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tiphys.agents.known_issue import known_issue
from tiphys.agents.monitoring import (
    BLINDING_QUERY,
    always_fires,
    blinded,
    down_targets,
    is_about_monitoring,
    tellers,
    untold,
)
from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import (
    AlertRule,
    AlertSource,
    Case,
    Metrics,
    Sample,
    UnansweredError,
)
from tiphys.agents.promql import (
    any_of,
    lasting_labels,
    longest_range,
    same_series,
    what_it_reads,
)
from tiphys.agents.resolver import names_a_pod
from tiphys.agents.state import State, written
from tiphys.agents.verdict import Verdict, ask_a_human, nothing, silence_of
from tiphys.policies.model import (
    Alert,
    AlertFacts,
    AlertStatus,
    Check,
    Json,
    Severity,
    Source,
)
from tiphys.workflow_templates.verification import LONGEST_WATCH

FLAPPING_EPISODES = 3
"""So many beginnings within an hour are flapping."""
LONGEST_SETTLE = LONGEST_WATCH - 600
"""Seconds; a longer wait, with the hold time, would not fit into a step's deadline. What looks back
further is believed once it is false for the hold time after that."""
A_DAY = 86_400.0
"""Seconds."""
MAX_ALERTS = 10
"""Alerts of one incident whose expressions are evaluated."""
_GRADE = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}
_OWN_PARTS = ("app_kubernetes_io_part_of", "app.kubernetes.io/part-of", "service", "job")


@dataclass(frozen=True)
class Truth:
    """One alert and what its rule's expression says now."""

    alert: Alert
    rule: AlertRule | None
    expression: str
    """Empty where neither the rules nor the alert's link name one."""
    samples: Sequence[Sample]
    """The expression's series that belong to this alert."""


def firing(case: Case) -> list[Alert]:
    """Give the case's firing alerts, the gravest and then the oldest first."""
    now = [a for a in case.alerts if a.status is AlertStatus.FIRING]
    return sorted(now, key=lambda a: (_GRADE[a.severity], a.starts_at, a.name, a.id))


def expression_in_link(generator_url: str) -> str:
    """Give the PromQL in an alert's link back to Prometheus; empty where there is none."""
    try:
        found = parse_qs(urlsplit(generator_url).query).get("g0.expr", [""])[0][:10_000]
        longest_range(found)
    except ValueError:
        return ""
    return found


def _expression_of(alert: Alert, rule: AlertRule | None) -> str:
    return rule.expression if rule else expression_in_link(alert.generator_url)


def rule_of(alert: Alert, rules: Sequence[AlertRule]) -> AlertRule | None:
    """Find the rule that made an alert: by name, then by the labels that it adds."""
    named = [r for r in rules if r.name == alert.name]

    def agrees(rule: AlertRule) -> bool:
        plain = {k: v for k, v in rule.labels.items() if "{{" not in v}
        return all(alert.labels.get(k) == v for k, v in plain.items())

    return next((r for r in named if agrees(r)), named[0] if len(named) == 1 else None)


def belongs(series: Mapping[str, str], check: Check) -> bool:
    """Tell whether a series of the expression is the incident's, as verify does."""
    if not check.labels and not check.pod_prefix:
        return True
    if check.labels and all(series.get(key) == value for key, value in check.labels.items()):
        return True
    same_place = series.get("namespace") == check.labels.get("namespace")
    prefix = check.pod_prefix
    return bool(prefix) and same_place and series.get("pod", "").startswith(prefix)


def check_of(truth: Truth) -> Check:
    """Say how verify asks whether this alert is over; the pods' prefix is not known yet."""
    if not truth.expression or not truth.samples:
        return Check()
    interval = truth.rule.interval_seconds if truth.rule else 30.0
    known = truth.rule.looks_back_seconds if truth.rule else None
    reach = longest_range(truth.expression) if known is None else known
    labels, series = truth.alert.labels, truth.samples[0].labels
    return Check(
        query=truth.expression,
        labels=lasting_labels(labels, series, about_pod=names_a_pod({**labels})),
        settle_seconds=min(round(reach + 2 * interval), LONGEST_SETTLE),
    )


class OnCall:
    """Asks Alertmanager and Prometheus; its `look` is a node of the graph."""

    def __init__(
        self,
        metrics: Metrics | None,
        alerts: AlertSource | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._metrics = metrics
        self._alerts = alerts
        self._clock = clock

    async def look(self, case: Case) -> State:
        """Give facts and notes, and a verdict where nothing more needs to be asked."""
        book = Notebook(self._clock)
        state = State(facts={"alert": _told(case, self._clock())})
        verdict = _without_asking(case)
        if verdict is None:
            try:
                verdict = await self._ask(case, book, state)
            except UnansweredError as error:
                why = f"cannot tell whether the alert is real: {error}"
                verdict = ask_a_human(why, silence_of(book.evidence))
                book.unseen.append(str(error))
        if verdict is not None:
            state["verdict"] = verdict.to_json()
            book.note(verdict.reason)
        state.update(written("on-call", book))
        return state

    async def _ask(self, case: Case, book: Notebook, state: State) -> Verdict | None:
        known, truths = await self._both(case, book)
        state["alert"] = known.model_dump(mode="json") if known else None
        if known and known.silenced:
            return nothing("the alert is silenced in Alertmanager: left alone")
        if known and known.inhibited:
            return nothing("the alert is inhibited by another one: left alone")
        if issue := known_issue(firing(case), book.now(), book):
            return nothing(issue[0], again=issue[1])
        if case.episodes_last_hour >= FLAPPING_EPISODES:
            return nothing(
                f"the alert is flapping: it began {case.episodes_last_hour} times within the last "
                "hour, so any action would be judged by the next swing, not by its effect"
            )
        if truths is None:
            book.note("Prometheus is not configured: only Alertmanager says that the alert is real")
            if known is None:
                return ask_a_human("neither Prometheus nor Alertmanager is configured to ask")
            return None if known.firing else nothing("Alertmanager no longer has the alert")
        return await self._weigh(known, truths, book, state)

    async def _both(
        self, case: Case, book: Notebook
    ) -> tuple[AlertFacts | None, list[Truth] | None]:
        known, truths = await asyncio.gather(
            self.alert_facts(case, book), self._truths(case, book), return_exceptions=True
        )
        if isinstance(known, BaseException):
            raise known
        if isinstance(truths, BaseException):
            raise truths
        return known, truths

    async def alert_facts(self, case: Case, book: Notebook) -> AlertFacts | None:
        """Ask the Alertmanagers; None where none is configured. Raises `UnansweredError`."""
        if self._alerts is None:
            return None
        return await book.ask(
            Source.ALERTMANAGER,
            f"active alerts of {case.subject}",
            self._alerts.facts(case.alerts),
            lambda facts: (facts.model_dump(mode="json"), _in_words(facts)),
        )

    async def still_true(self, check: Check, book: Notebook) -> bool:
        """Ask whether a proposal's alert is still true; true where there is nothing to ask."""
        if self._metrics is None or not check.query:
            return True
        return any(belongs(s.labels, check) for s in await self._evaluate(check.query, book))

    async def anything_true(self, case: Case) -> bool:
        """Ask whether any alert's expression is true, resolved alerts too; False without a rule.

        Raises `UnansweredError`.
        """
        if self._metrics is None:
            return False
        rules = await self._metrics.rules()
        for alert in case.alerts[:MAX_ALERTS]:
            expression = _expression_of(alert, rule_of(alert, rules))
            if not expression:
                continue
            samples = await self._metrics.instant(expression)
            if any(same_series(sample.labels, alert.labels) for sample in samples):
                return True
        return False

    async def _truths(self, case: Case, book: Notebook) -> list[Truth] | None:
        if self._metrics is None:
            return None
        alerts = firing(case)[:MAX_ALERTS]
        wanted_names = {a.name for a in alerts}
        rules = await book.ask(
            Source.PROMETHEUS,
            f"alerting rules named {', '.join(sorted(wanted_names))}",
            self._metrics.rules(),
            lambda every: _rules_told([r for r in every if r.name in wanted_names]),
        )
        found = [(a, rule_of(a, rules)) for a in alerts]
        wanted = [(a, r, _expression_of(a, r)) for a, r in found]
        distinct = list(dict.fromkeys(e for _, _, e in wanted if e))
        answers = await asyncio.gather(*(self._evaluate(e, book) for e in distinct))
        by_expression: Mapping[str, Sequence[Sample]] = dict(zip(distinct, answers, strict=True))
        return [
            Truth(a, r, e, [s for s in by_expression.get(e, ()) if same_series(s.labels, a.labels)])
            for a, r, e in wanted
        ]

    async def _evaluate(
        self, expression: str, book: Notebook, what: str = "the expression is true for {} series"
    ) -> Sequence[Sample]:
        assert self._metrics is not None
        return await book.ask(
            Source.PROMETHEUS,
            expression,
            self._metrics.instant(expression),
            lambda samples: (
                [{"labels": dict(s.labels), "value": s.value} for s in samples[:50]],
                what.format(len(samples) or "no"),
            ),
        )

    async def _weigh(
        self, known: AlertFacts | None, truths: list[Truth], book: Notebook, state: State
    ) -> Verdict | None:
        if blind := await self._blinded(truths, book):
            return blind
        true = [t for t in truths if t.samples]
        if true:
            first = true[0]
            state["check"] = check_of(first).model_dump(mode="json")
            told: dict[str, Any] = {
                "labels": dict(first.alert.labels),
                "name": first.alert.name,
                "severity": first.alert.severity.value,
                "expression_true": True,
                "value": first.samples[0].value,
            }
            state["facts"] = {"alert": {**_as_dict(state), **told}}
            book.note(f"{first.alert.name} is real: its expression is still true")
            return None
        unnamed = [t for t in truths if not t.expression]
        if unnamed:
            book.note(f"no rule of Prometheus is named {unnamed[0].alert.name}")
            if known is not None and not known.firing:
                return nothing("Alertmanager no longer has the alert: it is over")
            return None
        if (known is None or known.firing) and not await self._has_data(truths, book):
            return ask_a_human(
                "Prometheus has no data at all behind the alert's expression, so nobody can say "
                "whether it is over"
            )
        return await self._not_told(truths, book) or nothing(
            "the alert's expression is no longer true: it is over"
        )

    async def _blinded(self, truths: Sequence[Truth], book: Notebook) -> Verdict | None:
        said = await self._evaluate(
            BLINDING_QUERY, book, "{} alerts say that the monitoring is ill"
        )
        return blinded(said, {t.expression for t in truths if t.expression})

    async def _not_told(self, truths: Sequence[Truth], book: Notebook) -> Verdict | None:
        """Say so where who tells of the alert is itself down: missing is not healthy."""
        alerts = [t.alert for t in truths]
        jobs = tellers(alerts, {t.expression for t in truths if t.expression})
        if not jobs:
            return None
        return untold(
            alerts,
            await self._evaluate(down_targets(jobs), book, "{} of its scrape targets are down"),
        )

    async def _has_data(self, truths: Sequence[Truth], book: Notebook) -> bool:
        names: set[str] = set()
        jobs: set[str] = set()
        for truth in truths:
            metrics, scraped = what_it_reads(truth.expression)
            names |= metrics
            jobs |= scraped
        if not names:
            return True
        query = f"count({{__name__=~{any_of(names)}}})"
        if jobs:
            query += f" or count(up{{job=~{any_of(jobs)}}} == 1)"
        return bool(await self._evaluate(query, book, "{} counts of the series behind it"))


def _without_asking(case: Case) -> Verdict | None:
    if not case.managed:
        return ask_a_human(
            f"cluster {case.cluster} is not managed by this installation: nothing was asked of it"
        )
    own = next((a for a in case.alerts if _is_about_us(a)), None)
    if own is not None:
        return ask_a_human(f"{own.name} is about Tiphys itself, which never acts on itself")
    if case.handled_by:
        return nothing(f"incident {case.handled_by} already handles the same target")
    now = firing(case)
    if not now:
        return nothing("all its alerts are resolved")
    if all(map(always_fires, now)):
        why = f"{now[0].name} is meant to fire always: it proves that alerting works"
        return nothing(why, again=A_DAY)
    ill = next((a for a in now if is_about_monitoring(a)), None)
    if ill is not None:
        return ask_a_human(
            f"{ill.name} is about the monitoring itself, which would have to prove that an action "
            "helped: nothing is done about it but by a human"
        )
    return None


def _is_about_us(alert: Alert) -> bool:
    parts = {alert.labels.get(label, "") for label in _OWN_PARTS}
    return alert.name.startswith("Tiphys") or "tiphys" in parts


def _told(case: Case, now: datetime) -> dict[str, Json]:
    """Give the facts of the gravest alert, firing or not."""
    alerts = firing(case) or list(case.alerts)
    first = alerts[0] if alerts else None
    names: list[Json] = [*sorted({a.name for a in alerts})]
    return {
        "name": first.name if first else "",
        "severity": first.severity.value if first else "",
        "labels": dict(first.labels) if first else {},
        "names": names,
        "count": len(alerts),
        "minutes": round((now - first.starts_at).total_seconds() / 60, 1) if first else 0.0,
        "episodes_last_hour": case.episodes_last_hour,
        "expression_true": False,
    }


def _as_dict(state: State) -> dict[str, Json]:
    told = state.get("facts", {}).get("alert")
    return told if isinstance(told, dict) else {}


def _rules_told(rules: Sequence[AlertRule]) -> tuple[Json, str]:
    told: list[Json] = [
        {"name": r.name, "expression": r.expression, "for_seconds": r.for_seconds} for r in rules
    ]
    return told, f"{len(rules)} rules"


def _in_words(facts: AlertFacts) -> str:
    how = "firing" if facts.firing else "not firing"
    more = [
        w for w, is_so in (("silenced", facts.silenced), ("inhibited", facts.inhibited)) if is_so
    ]
    return f"{', '.join(facts.names) or 'the alert'}: {', '.join([how, *more])}"
