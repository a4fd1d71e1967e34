"""The sandbox's PromQL evaluator, against promtool's own test files and by hand."""

import math
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tiphys.sandbox.alert_rules import (
    AlertingState,
    AlertState,
    Recording,
    Rule,
    load_rules,
    recorded,
)
from tiphys.sandbox.alert_templates import expand
from tiphys.sandbox.promql import evaluate, instant_vector, matchers_of
from tiphys.sandbox.promql_vectors import (
    Matrix,
    QueryError,
    QuerySyntaxError,
    Scalar,
    UnsupportedError,
    Vector,
    key_of,
)
from tiphys.sandbox.tsdb import NAME, Tsdb

RULES = Path(__file__).parents[1] / "data" / "rules"

# --- promtool's files ---------------------------------------------------------------------------

_NUMBER = r"[-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|Inf|NaN)"


def expanded(notation: str) -> list[float | str | None]:
    """Expand `1+2x3 _x2 stale` to one item a step: a number, None (no sample) or "stale"."""
    items: list[float | str | None] = []
    for word in notation.split():
        if found := re.fullmatch(r"_(?:x(\d+))?", word):
            items += [None] * int(found[1] or 1)
        elif word == "stale":
            items.append("stale")
        elif found := re.fullmatch(rf"({_NUMBER})(?:([-+][\d.]+))?x(\d+)", word):
            first, rise = float(found[1]), float(found[2] or 0)
            items += [first + rise * i for i in range(int(found[3]) + 1)]
        else:
            items.append(float(word))
    return items


def seconds(duration: str) -> float:
    if str(duration).strip("0") in {"", "s", "m", "h"}:
        return 0.0
    return promql_parser.parse_duration(str(duration)).total_seconds()


def label_set(notation: str) -> dict[str, str]:
    return {m.name: m.value for m in matchers_of(notation) if m.value}


def filled(case: dict[str, Any], step: float) -> Tsdb:
    tsdb = Tsdb(retention_seconds=1e9)
    for series in case["input_series"]:
        labels = label_set(series["series"])
        name = labels.pop(NAME)
        for i, item in enumerate(expanded(series["values"])):
            if item == "stale":
                tsdb.mark_stale(name, labels, i * step)
            elif isinstance(item, float):
                tsdb.append(name, labels, i * step, item)
    return tsdb


def metrics_in(expr: str) -> set[str]:
    names: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            names.add(node.name or "")

    promql_parser.walk(promql_parser.parse(expr), visit)
    return names


def needed_rules(case: dict[str, Any], rules: list[Rule | Recording]) -> list[Rule | Recording]:
    """The rules that the case asks for, and the recording rules below them, in file order."""
    alerts = {test["alertname"] for test in case.get("alert_rule_test", [])}
    wanted = {n for test in case.get("promql_expr_test", []) for n in metrics_in(test["expr"])}
    chosen = {i for i, rule in enumerate(rules) if isinstance(rule, Rule) and rule.alert in alerts}
    grown = -1
    while grown != len(chosen):
        grown = len(chosen)
        wanted |= {name for i in chosen for name in metrics_in(rules[i].expr)}
        chosen |= {
            i for i, rule in enumerate(rules) if isinstance(rule, Recording)
            and rule.record in wanted
        }  # fmt: skip
    return [rules[i] for i in sorted(chosen)]


@cache
def rules_in(name: str) -> list[Rule | Recording]:
    return load_rules(yaml.load((RULES / name).read_text(), yaml.CSafeLoader))


class Bench:
    """Rules evaluated over the samples of one case, step by step."""

    def __init__(self, case: dict[str, Any], document: dict[str, Any]) -> None:
        rules = [r for path in document["rule_files"] for r in rules_in(Path(path).name)]
        self.tsdb = filled(case, seconds(case["interval"]))
        self.rules = [
            AlertingState(rule) if isinstance(rule, Rule) else rule
            for rule in needed_rules(case, rules)
        ]
        self.step = seconds(document.get("evaluation_interval", "1m"))
        self.now = -self.step

    def run_to(self, at: float) -> None:
        while self.now + self.step <= at:
            self.now += self.step
            for i, rule in enumerate(self.rules):
                if isinstance(rule, AlertingState):
                    rule.evaluate(self.tsdb, self.now)
                    assert not rule.error, rule.error
                else:
                    self.tsdb.ingest(str(i), recorded(rule, self.tsdb, self.now), self.now)

    def firing(self, name: str) -> list[tuple[dict[str, str], dict[str, str]]]:
        return [
            (alert.labels, alert.annotations)
            for rule in self.rules
            if isinstance(rule, AlertingState) and rule.rule.alert == name
            for alert in rule.active.values()
            if alert.state is AlertState.FIRING
        ]


def promtool_cases() -> list[Any]:
    cases: list[Any] = []
    for path in sorted((RULES / "tests").glob("*.yaml")):
        document = yaml.load(path.read_text(), yaml.CBaseLoader)
        for i, case in enumerate(document["tests"]):
            about = [t["alertname"] for t in case.get("alert_rule_test", [])] or [
                t["expr"].partition("{")[0] for t in case.get("promql_expr_test", [])
            ]
            cases.append(pytest.param(document, case, id=f"{path.stem}-{i}-{about[0]}"))
    return cases


def by_key(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = {key_of(labels): value for labels, value in pairs}
    assert len(found) == len(pairs)
    return found


@pytest.mark.parametrize(("document", "case"), promtool_cases())
def test_promtool_says_the_same(document: dict[str, Any], case: dict[str, Any]) -> None:
    bench = Bench(case, document)
    tests = [*case.get("alert_rule_test", []), *case.get("promql_expr_test", [])]
    for test in sorted(tests, key=lambda t: seconds(t["eval_time"])):
        at = seconds(test["eval_time"])
        bench.run_to(at)
        if name := test.get("alertname"):
            expected = [
                (
                    {**alert["exp_labels"], "alertname": name},
                    alert.get("exp_annotations", {}),
                )
                for alert in test.get("exp_alerts") or []
            ]
            assert by_key(bench.firing(name)) == by_key(expected)
        else:
            samples = by_key(instant_vector(bench.tsdb, test["expr"], at))
            wanted = by_key(
                [(label_set(s["labels"]), float(s["value"])) for s in test.get("exp_samples") or []]
            )
            assert samples.keys() == wanted.keys()
            for key, value in wanted.items():
                assert samples[key] == pytest.approx(value)


# --- by hand ------------------------------------------------------------------------------------


def loaded(text: str, step: float = 15.0) -> Tsdb:
    """A database from lines such as `requests{pod="a"} 0+15x20`."""
    series = [line.strip().partition("} ") for line in text.strip().splitlines()]
    lines = [{"series": f"{head}}}", "values": values} for head, _, values in series]
    return filled({"input_series": lines}, step)


def ask(tsdb: Tsdb, query: str, at: float = 300.0) -> dict[str, float]:
    """The answer at one time, keyed by labels written as `name{a=b}`."""
    return {
        labels.get(NAME, "")
        + ",".join(f"{k}={v}" for k, v in sorted(labels.items()) if k != NAME): value
        for labels, value in instant_vector(tsdb, query, at)
    }


PODS = """
    up{pod="a",node="n1"} 1x40
    up{pod="b",node="n1"} 0x40
    up{pod="c",node="n2"} 1x40
    load{pod="a",node="n1"} 5x40
    load{pod="b",node="n1"} 1x40
    load{pod="c",node="n2"} 3x40
    size{node="n1",zone="west"} 10x40
    size{node="n2",zone="east"} 20x40
"""


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("sum(load)", {"": 9}),
        ("sum by (node) (load)", {"node=n1": 6, "node=n2": 3}),
        ("avg without (pod) (load)", {"node=n1": 3, "node=n2": 3}),
        ("min(load) + max(load)", {"": 6}),
        ("count(up == 1)", {"": 2}),
        ("topk(2, load)", {"loadnode=n1,pod=a": 5, "loadnode=n2,pod=c": 3}),
        ("bottomk by (node) (1, load)", {"loadnode=n1,pod=b": 1, "loadnode=n2,pod=c": 3}),
        ("quantile(0.5, load)", {"": 3}),
        ('count_values("v", up)', {"v=1": 2, "v=0": 1}),
        ("load > 2", {"loadnode=n1,pod=a": 5, "loadnode=n2,pod=c": 3}),
        ("2 < load", {"loadnode=n1,pod=a": 5, "loadnode=n2,pod=c": 3}),
        ("load > bool 2", {"node=n1,pod=a": 1, "node=n1,pod=b": 0, "node=n2,pod=c": 1}),
        ("1 > bool 2", {"": 0}),
        ("load * up", {"node=n1,pod=a": 5, "node=n1,pod=b": 0, "node=n2,pod=c": 3}),
        ("load == on(pod) up + 4", {"pod=a": 5}),
        ("load and on(pod) up == 1", {"loadnode=n1,pod=a": 5, "loadnode=n2,pod=c": 3}),
        ("load unless on(pod) up == 1", {"loadnode=n1,pod=b": 1}),
        ("size or on(zone) size", {"sizenode=n1,zone=west": 10, "sizenode=n2,zone=east": 20}),
        (
            "load / on(node) group_left(zone) size",
            {
                "node=n1,pod=a,zone=west": 0.5,
                "node=n1,pod=b,zone=west": 0.1,
                "node=n2,pod=c,zone=east": 0.15,
            },
        ),
        (
            "size - on(node) group_right load",
            {"node=n1,pod=a": 5, "node=n1,pod=b": 9, "node=n2,pod=c": 17},
        ),
        ("sum(load) - ignoring(node) sum(up)", {"": 7}),
        ('load{pod=~"a|b",node!="n2"}', {"loadnode=n1,pod=a": 5, "loadnode=n1,pod=b": 1}),
        ('load{pod!~"a|b"}', {"loadnode=n2,pod=c": 3}),
        ('{__name__=~"loa.",pod="a"}', {"loadnode=n1,pod=a": 5}),
        ('load{pod=~"a."}', {}),
        ('absent(load{pod="z",node=~"n.*"})', {"pod=z": 1}),
        ("absent(load)", {}),
        ("clamp_max(clamp_min(load, 2), 4)", {"node=n1,pod=a": 4, "node=n1,pod=b": 2,
                                             "node=n2,pod=c": 3}),
        ("round(size / 3, 0.5)", {"node=n1,zone=west": 3.5, "node=n2,zone=east": 6.5}),
        ("floor(vector(2.7 * scalar(sum(up)))) + time()", {"": 305}),
        ("scalar(load)", {"": math.nan}),
        ("-size", {"node=n1,zone=west": -10, "node=n2,zone=east": -20}),
        ("2 ^ 3 % 5", {"": 3}),
        ("1 / 0", {"": math.inf}),
        ('label_replace(size, "where", "$1-side", "zone", "(w.*)t")',
         {"sizenode=n1,where=wes-side,zone=west": 10, "sizenode=n2,zone=east": 20}),
        ('label_join(size, "both", "/", "node", "zone")',
         {"sizeboth=n1/west,node=n1,zone=west": 10, "sizeboth=n2/east,node=n2,zone=east": 20}),
        ("timestamp(size)", {"node=n1,zone=west": 300, "node=n2,zone=east": 300}),
        ("max_over_time(sum(load)[2m:30s])", {"": 9}),
        ("sort_desc(size)", {"sizenode=n2,zone=east": 20, "sizenode=n1,zone=west": 10}),
        ("hour() + minute()", {"": 5}),
    ],
)  # fmt: skip
def test_operators_and_functions(query: str, answer: dict[str, float]) -> None:
    assert ask(loaded(PODS), query) == pytest.approx(answer, nan_ok=True)


def test_the_order_of_sorted_and_ranked_samples_is_kept() -> None:
    assert [v for _, v in instant_vector(loaded(PODS), "sort_desc(load)", 300)] == [5, 3, 1]
    assert [v for _, v in instant_vector(loaded(PODS), "topk(3, load)", 300)] == [5, 3, 1]


COUNTERS = """
    hits{pod="steady"} 0+15x40
    hits{pod="reset"} 0+15x10 0+15x29
    gauge{pod="up"} 10+2x40
    gauge{pod="still"} 7x40
"""


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("rate(hits[2m])", {"pod=reset": 1, "pod=steady": 1}),
        ("increase(hits[4m])", {"pod=reset": 224.0, "pod=steady": 240}),
        ("irate(hits[1m])", {"pod=reset": 1, "pod=steady": 1}),
        ("delta(gauge[1m])", {"pod=up": 8, "pod=still": 0}),
        ("idelta(gauge[1m])", {"pod=up": 2, "pod=still": 0}),
        ("deriv(gauge[2m])", {"pod=up": 2 / 15, "pod=still": 0}),
        ("predict_linear(gauge[2m], 15)", {"pod=up": 52, "pod=still": 7}),
        ("changes(gauge[1m])", {"pod=up": 3, "pod=still": 0}),
        ("resets(hits[4m])", {"pod=reset": 1, "pod=steady": 0}),
        ("avg_over_time(gauge[1m])", {"pod=up": 47, "pod=still": 7}),
        ("min_over_time(gauge[1m])", {"pod=up": 44, "pod=still": 7}),
        ("sum_over_time(gauge[30s])", {"pod=up": 98, "pod=still": 14}),
        ("count_over_time(gauge[1m])", {"pod=up": 4, "pod=still": 4}),
        ("quantile_over_time(1, gauge[1m])", {"pod=up": 50, "pod=still": 7}),
        ("last_over_time(gauge[1m])", {"gaugepod=up": 50, "gaugepod=still": 7}),
        ("gauge offset 1m", {"gaugepod=up": 42, "gaugepod=still": 7}),
        ('gauge{pod="up"} @ 150', {"gaugepod=up": 30}),
        ("absent_over_time(nothing[5m])", {"": 1}),
    ],
)
def test_range_functions(query: str, answer: dict[str, float]) -> None:
    assert ask(loaded(COUNTERS), query) == pytest.approx(answer)


def test_a_window_is_open_on_the_left_and_so_is_the_lookback() -> None:
    tsdb = loaded('x{a="1"} 1 2 3', step=60)
    assert ask(tsdb, "count_over_time(x[1m])", 120) == {"a=1": 1}
    assert ask(tsdb, "x", 120 + 299) == {"xa=1": 3}
    assert ask(tsdb, "x", 120 + 300) == {}


def test_a_series_marked_stale_is_gone_at_once_and_can_come_back() -> None:
    tsdb = loaded('x{a="1"} 1 stale 5', step=15)
    assert [ask(tsdb, "x", at) for at in (0, 14, 15, 29, 30)] == [
        {"xa=1": 1}, {"xa=1": 1}, {}, {}, {"xa=1": 5},
    ]  # fmt: skip
    assert ask(tsdb, "sum_over_time(x[5m])", 60) == {"a=1": 6}


def test_a_series_that_a_scrape_no_longer_gives_goes_stale() -> None:
    tsdb = Tsdb()
    tsdb.ingest("job", [("x", {"pod": "a"}, 1.0), ("x", {"pod": "b"}, 1.0)], 100)
    tsdb.ingest("other", [("y", {"pod": "a"}, 1.0)], 100)
    tsdb.ingest("job", [("x", {"pod": "b"}, 2.0)], 101)
    assert ask(tsdb, "x", 101) == {"xpod=b": 2}
    assert ask(tsdb, "y", 101) == {"ypod=a": 1}


def test_samples_that_are_not_newer_are_dropped_and_old_ones_forgotten() -> None:
    tsdb = Tsdb(retention_seconds=100)
    assert tsdb.append("x", {}, 10, 1.0)
    assert not tsdb.append("x", {}, 10, 2.0)
    assert ask(tsdb, "x", 10) == {"x": 1}
    tsdb.ingest("job", [("y", {}, 1.0)], 200)
    assert tsdb.select([]) == tsdb.select(matchers_of("y"))


def test_histogram_quantile_interpolates() -> None:
    tsdb = loaded(
        """
        b{le="1"} 5
        b{le="2"} 10
        b{le="+Inf"} 10
        """
    )
    assert ask(tsdb, "histogram_quantile(0.75, b)", 0) == {"": pytest.approx(1.5)}
    assert ask(tsdb, "histogram_quantile(0.25, b)", 0) == {"": pytest.approx(0.5)}


def test_the_grid_answers_as_single_steps_do() -> None:
    tsdb = loaded(f"{COUNTERS.strip()}\n{PODS.strip()}")
    times = [150.0 + 15 * i for i in range(20)]
    for query in (
        "rate(hits[2m])", "increase(hits[4m]) > 200", "topk(1, hits)", "sum(hits) or sum(gauge)",
        "load and on() gauge{pod='up'} > 40", "gauge @ end()", "max_over_time(hits[1m:15s])",
        "hits unless hits < 300", "changes(gauge[1m]) + ignoring(pod) group_left() sum(up)",
    ):  # fmt: skip
        value = evaluate(tsdb, query, times)
        assert isinstance(value, Vector)
        assert value.rows, query
        last = query.replace("end()", str(times[-1]))
        for i, at in enumerate(times):
            column = [(r.labels, v) for r in value.rows if (v := r.values[i]) is not None]
            assert by_key(column) == by_key(instant_vector(tsdb, last, at)), (query, at)


def test_kinds_of_values() -> None:
    tsdb = loaded(PODS)
    assert isinstance(evaluate(tsdb, "1 + 1", [0.0]), Scalar)
    assert isinstance(evaluate(tsdb, "up[5m]", [0.0]), Matrix)
    assert evaluate(tsdb, '"text"', [0.0]) == "text"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("sum(", QuerySyntaxError),
        ("rate(up)", QuerySyntaxError),
        ('up{pod="a" or pod="b"}', UnsupportedError),
        ("limitk(1, up)", UnsupportedError),
        ("mad_over_time(up[5m])", UnsupportedError),
        ('sort_by_label(up, "pod")', UnsupportedError),
        ("load / on(node) size", QueryError),
        ("size / on(node) load", QueryError),
        ("size / on(node) group_left load", QueryError),
        ('label_replace(load, "pod", "same", "pod", ".*")', None),
        ('label_replace(label_replace(load, "pod", "x", "", ""), "node", "x", "", "")', QueryError),
    ],
)
def test_what_cannot_be_answered_is_refused(query: str, error: type[Exception] | None) -> None:
    if error is None:
        query, error = f"{query} + on(node) load", QueryError
    with pytest.raises(error):
        instant_vector(loaded(PODS), query, 300)


def test_ambiguous_matches_are_named() -> None:
    for query, why in (
        ("load / on(node) size", "many-to-one matching must be explicit"),
        ("size / on(node) load", "many-to-many matching not allowed"),
        ("load / on(node) group_left(pod) size", "grouping labels must ensure unique matches"),
    ):
        with pytest.raises(QueryError, match=why):
            instant_vector(loaded(PODS), query, 300)


def test_a_large_range_query_is_cheap() -> None:
    """240 steps x 50 series over 5-minute windows of samples each second, in processor time."""
    tsdb = Tsdb()
    for pod in range(50):
        tsdb.extend("hits", {"pod": str(pod)}, 0, 15, [15.0 * i for i in range(240)])
        tsdb.extend("hits", {"pod": str(pod)}, 3600, 1, [3600.0 + i for i in range(3600)])
    times = [7200.0 - 15 * i for i in reversed(range(240))]
    for query in ("sum by (pod) (rate(hits[5m]))", "max_over_time(hits[5m]) > 100", "hits * 2"):
        started = time.process_time()
        value = evaluate(tsdb, query, times)
        took = time.process_time() - started
        assert isinstance(value, Vector)
        assert len(value.rows) == 50
        assert took < 0.6, (query, took)


# --- rules --------------------------------------------------------------------------------------


def test_deployment_replicas_mismatch_fires_when_nothing_moves() -> None:
    """An alert that the mixin's own tests leave out."""
    labels = 'job="kube-state-metrics",namespace="shop",deployment="cart"'
    tsdb = loaded(
        f"""
        kube_deployment_spec_replicas{{{labels}}} 3x60
        kube_deployment_status_replicas_available{{{labels}}} 3x5 1x54
        kube_deployment_status_replicas_updated{{{labels}}} 3x60
        """,
        step=60,
    )
    rule = next(
        rule for rule in rules_in("prometheus_alerts.yaml")
        if isinstance(rule, Rule) and rule.alert == "KubeDeploymentReplicasMismatch"
    )  # fmt: skip
    state = AlertingState(rule)
    seen = {}
    for minute in range(40):
        state.evaluate(tsdb, minute * 60.0)
        seen[minute] = state.state
    assert seen[5] is AlertState.INACTIVE
    assert seen[6] is AlertState.PENDING
    assert seen[20] is AlertState.PENDING
    assert seen[21] is AlertState.FIRING


def test_every_rule_of_the_mixin_evaluates() -> None:
    tsdb = loaded(PODS)
    for rule in [*rules_in("prometheus_alerts.yaml"), *rules_in("prometheus_rules.yaml")]:
        instant_vector(tsdb, rule.expr, 300)


def test_an_alert_pends_fires_resolves_and_starts_anew() -> None:
    tsdb = loaded('broken{pod="a"} 0 1 1 1 1 0 0 1 1 1', step=15)
    state = AlertingState(Rule("Broken", "broken == 1", 30, {"severity": "page"}))
    story = []
    for i in range(10):
        state.evaluate(tsdb, i * 15.0)
        story.append(state.state.value[0])
    assert "".join(story) == "ippffiippf"
    (alert,) = state.active.values()
    assert (alert.active_at, alert.fired_at) == (105, 135)
    assert alert.labels == {"alertname": "Broken", "pod": "a", "severity": "page"}


def test_a_rule_that_cannot_be_evaluated_keeps_its_alerts_and_says_so() -> None:
    tsdb = loaded(PODS)
    state = AlertingState(Rule("Down", "up == 0"))
    state.evaluate(tsdb, 300)
    tsdb.append("up", {"pod": "b", "zone": "x"}, 301, 0.0)
    state.rule = Rule("Down", "up / on(node) load")
    state.evaluate(tsdb, 301)
    assert "many" in state.error
    assert state.state is AlertState.FIRING


def test_hurried_cuts_the_hold_and_long_windows_only() -> None:
    rule = Rule("A", 'rate(x{a="[5m]"}[10m]) > 0 and y[5m:15s] and rate(z[10s])', 900)
    hurried = rule.hurried(for_seconds=2, window_seconds=30)
    assert hurried.for_seconds == 2
    assert hurried.expr == 'rate(x{a="[5m]"}[30s]) > 0 and y[30s:15s] and rate(z[10s])'
    assert rule.hurried(1000, 1e6) == rule


@pytest.mark.parametrize(
    "entry", [{"alert": "A"}, {"expr": "up"}, {"alert": "A", "expr": "up", "fro": "5m"}]
)
def test_a_broken_rule_is_refused(entry: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="rule"):
        load_rules({"groups": [{"rules": [entry]}]})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Pod {{ $labels.pod }} at {{ $value }}", "Pod api-1 at 0.256"),
        ("{{ $value | humanizePercentage }}", "25.6%"),
        ("{{ $value | humanize }}s", "256ms"),
        ('{{ "90061" | humanizeDuration }}', "1d 1h 1m 1s"),
        ('{{ printf "%.2f" $value }}', "0.26"),
        ("{{ with $labels.pod -}} on {{ . }} {{- end }}!", "on api-1!"),
        ("{{ with $labels.gone }} on {{ . }}{{ end }}!", "!"),
        ("{{ if $labels.gone }}a{{ else }}b{{ end }}", "b"),
        ("{{ $labels.pod | nonsense }}",
         "<error expanding template: function 'nonsense' not defined>"),
        ("{{ if $value }}", "<error expanding template: unexpected EOF>"),
    ],
)  # fmt: skip
def test_annotation_templates(template: str, text: str) -> None:
    assert expand(template, {"pod": "api-1"}, 0.256) == text
