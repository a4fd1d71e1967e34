"""Stories of retold evidence: what is weighed, what stands out, and which wordings are alike."""

from collections import Counter
from collections.abc import Iterable
from importlib.resources import files

import pytest
import yaml

from tiphys.agents.playbooks import Playbooks
from tiphys.agents.symptoms import SYMPTOMS
from tiphys.service.evaluation.judging import Mark
from tiphys.service.evaluation.retold import limits, stories
from tiphys.service.evaluation.retold.reader import Reading, read
from tiphys.service.evaluation.retold.rules import Rule, Told, rule
from tiphys.service.evaluation.retold.words import read_item, table
from tiphys.service.evaluation.runbooks import RunbookCase, RunbookSet, judged
from tiphys.service.evaluation.vocabulary import Deed

TABLES = files("tiphys.service.evaluation.retold")


def reading(*answers: tuple[str, str], alert: str = "Something", **labels: str) -> Reading:
    return read(alert, labels, [{"kind": "log", "q": q, "a": a} for q, a in answers])


def outcome(*answers: tuple[str, str], alert: str = "Something", **labels: str) -> str:
    """Give the outcome of the story that stands out, or nothing."""
    told = reading(*answers, alert=alert, **labels).told
    return told.story.outcome if told and told.story else ""


def rules() -> Iterable[Rule]:
    for story in stories.stories().stories:
        yield from (*story.needs, *story.bars, *(line for _, line in story.weighs))


def test_stories_name_concepts_symptoms_and_decisions_that_exist() -> None:
    concepts = {*table("lexicon.yaml")["concepts"], *table("tellings.yaml")["concepts"]}
    for story in stories.stories().stories:
        assert story.tells <= set(SYMPTOMS), story.name
        assert story.outcome in {*Deed}, story.name
        assert bool(story.tells) == (story.outcome != Deed.ESCALATE), story.name
    for one in rules():
        named = one.said | one.unsaid | one.denied | one.undenied
        assert {n for n in named if n[0] not in "#="} <= concepts | {"info", "none", "critical"}
        assert {n[1:] for n in named if n[0] == "="} <= set(SYMPTOMS)
        assert {n[7:] for n in named if n.startswith("#alert_")} <= concepts


def test_no_key_of_a_table_stands_twice() -> None:
    # A second one would silently replace the first, and weights would be lost.
    for name in ("stories.yaml", "tellings.yaml", "lexicon.yaml", "readings.yaml"):
        written = yaml.compose((TABLES / name).read_text(encoding="utf-8"), yaml.SafeLoader)
        places = [written]
        while places:
            node = places.pop()
            if isinstance(node, yaml.MappingNode):
                counted = Counter(key.value for key, _ in node.value)
                assert {k for k, n in counted.items() if n > 1} == set(), name
                places += [value for _, value in node.value]


def test_a_rule_asks_for_what_is_said_left_unsaid_and_denied() -> None:
    told = Told({"case": [{"a_thing", "b_thing"}], "statement": [{"a_thing"}]}, {"c_thing"})
    assert told.holds(rule("case a_thing + b_thing"))
    assert not told.holds(rule("statement a_thing + b_thing"))
    assert not told.holds(rule("case a_thing - b_thing"))
    assert told.holds(rule("case a_thing + no:c_thing"))
    assert not told.holds(rule("case a_thing - no:c_thing"))


@pytest.mark.parametrize(
    ("evidence", "labels", "expected"),
    [
        pytest.param(
            [("get pods", "mixer-4 has said nothing for 40 min, the other six serve"),
             ("get node", "Ready")], {"pod": "mixer-4"}, "restart_pod", id="one-pod"),
        pytest.param(
            [("secret", "renewed two hours ago and accepted"),
             ("pods", "running for 12 days, the key is read at start")], {}, "rollout_restart",
            id="old-values"),
        pytest.param(
            [("error ratio", "0.001 until 13:10, 0.3 since"),
             ("deploys", "13:09 a build that drops the batch limit")], {}, "rollout_undo",
            id="release"),
        pytest.param(
            [("timeouts", "none before 10:30, 20 % since"),
             ("configmap history", "10:30 max_wait 9s to 1s"), ("deploys", "none")], {},
            "update_config", id="setting"),
        pytest.param(
            [("jobs per minute", "30, normally 8"), ("workers", "all busy, CPU 0.98"),
             ("releases", "none this week")], {}, "scale_deployment", id="demand"),
        pytest.param(
            [("kernel log", "hung task, soft lockup on CPU 3, again and again"),
             ("other nodes", "quiet")], {"node": "n-3"}, "cordon_drain_node", id="node"),
        pytest.param(
            [("pods", "6 wait for a GPU since 08:00"), ("cards", "40 of 40 allocated"),
             ("pool", "5 machines of at most 9")], {}, "scale_gpu_node_pool", id="gpu-pool"),
        pytest.param(
            [("df", "93 %, half a percent more each day for months"),
             ("class", "can be resized")], {"persistentvolumeclaim": "d-0"}, "expand_pvc",
            id="volume"),
        pytest.param(
            [("pods", "80 Failed, all from the outage on Sunday, which is over"),
             ("deployments", "all ready")], {}, "delete_failed_pods", id="left-overs"),
        pytest.param(
            [("rule", "fires by design in every cluster"), ("users", "nobody notices")], {},
            "none", id="quiet"),
        pytest.param(
            [("log", "name resolution fails, SERVFAIL from the upstream resolver"),
             ("provider", "reports an outage")], {}, "escalate", id="human"),
    ],
)  # fmt: skip
def test_each_story_is_told_by_words_that_no_case_has(
    evidence: list[tuple[str, str]], labels: dict[str, str], expected: str
) -> None:
    assert outcome(*evidence, **labels) == expected


def test_thin_evidence_and_evidence_for_two_stories_tell_none() -> None:
    assert outcome(("pods", "they hang")) == ""
    node = [("kernel log", "soft lockup, hung task"), ("other nodes", "quiet")]
    volume = [("df, class", "95 %, a percent a week for months; can be resized")]
    assert outcome(*node) == "cordon_drain_node"
    assert outcome(*volume, persistentvolumeclaim="d-0") == "expand_pvc"
    assert outcome(*node, *volume, persistentvolumeclaim="d-0") == ""


def test_a_barred_story_is_not_told_however_much_speaks_for_it() -> None:
    slow = ("p99", "90 ms until 09:10, 2 s since")
    bad = ("deploys", "09:09 adds a query per item")
    undone = ("deploys", "09:09 adds a query per item; rolled back already at 09:30")
    assert outcome(slow, bad) == "rollout_undo"
    assert outcome(slow, undone) != "rollout_undo"


def _case(evidence: list[tuple[str, str]], **labels: str) -> RunbookCase:
    seen = [{"kind": "log", "q": q, "a": a} for q, a in evidence]
    return RunbookCase.model_validate(
        {"id": "x", "alert": "Something", "labels": labels, "evidence": seen, "action": "none"}
    )


async def _decided(evidence: list[tuple[str, str]], **labels: str) -> str:
    cases = RunbookSet(TABLES / "x.yaml", [_case(evidence, **labels)])  # type: ignore[arg-type]
    (one,) = (await judged(cases, Playbooks.load())).judged
    assert one.mark in {*Mark}
    return one.decided


async def test_an_answer_of_the_rules_needs_a_story_that_bears_it_out() -> None:
    # Rows look like one ill pod; that it is the new ones, after a change of the probe, weighs more.
    rows = [
        ("get pods", "4 new 0/1, 4 old 1/1"),
        ("describe", "readiness probe refused on port 90"),
        ("diff of the last revision", "port of the probe 80 to 90"),
    ]
    assert await _decided(rows) == "rollout_undo"
    # `released` near the onset is no reason to undo what is over.
    over = [
        ("up", "0 for 80 s at 07:04, 1 since"),
        ("changes", "07:03 new version of the exporter, complete"),
    ]
    assert await _decided(over) == "none"


def test_names_are_read_as_what_they_name() -> None:
    item = read_item("", "q", "timeouts on n-3 only; n-4 is fine", {"n-3": "node"})
    assert item.answer == "timeouts on this node only; other node is fine"
    plain = read_item("", "q", "stream n-31 and xn-3", {"n-3": "node"})
    assert plain.answer == "stream other node and xn-3"


def test_none_as_an_answer_denies_what_is_asked_for() -> None:
    item = read_item("", "deploys", "none today")
    assert "release" not in item.said
    assert "release" in item.statements[0].denied
    assert "release" in read_item("", "deploys", "12:10 shop").said


def test_a_question_is_read_together_with_its_answer() -> None:
    assert "t_others_well" in read_item("", "other members", "connected").said
    assert "t_others_well" not in read_item("", "this member", "connected").said


@pytest.mark.parametrize(
    ("right", "pods", "older"),
    [
        pytest.param("corrected 20 min ago", "pods started 3 h ago", True, id="ages"),
        pytest.param("correct again since 08:30", "config loaded at 02:10", True, id="clock"),
        pytest.param("corrected 3 h ago", "pods started 20 min ago", False, id="younger"),
    ],
)
def test_pods_are_compared_with_what_was_put_right(right: str, pods: str, older: bool) -> None:
    told = reading(("configmap", right), ("pods", pods)).told
    assert told is not None
    assert ("rollout_restart" in told.borne_out) is older


def test_what_a_figure_usually_is_tells_that_it_rose() -> None:
    busy = ("pods", "all at their CPU limit")
    assert outcome(("requests/s", "1.4k, usually 300"), busy) == "scale_deployment"
    assert outcome(("requests/s", "1.4k, usually 1.3k"), busy) != "scale_deployment"


@pytest.mark.parametrize(
    ("evidence", "labels", "harm"),
    [
        pytest.param(
            [("describe pod", "Insufficient nvidia.com/gpu"),
             ("GPUs", "24 of 24 allocated, seven of them idle for a day")], {},
            "scale_gpu_node_pool", id="idle-gpus"),
        pytest.param(
            [("df", "97 %, 30 GB in the last hour"), ("class", "expandable")],
            {"persistentvolumeclaim": "d-0"}, "expand_pvc", id="burst"),
        pytest.param(
            [("log", "checksum error, data files corrupt"), ("the others", "healthy, serve")],
            {"pod": "d-1"}, "restart_pod", id="broken-data"),
        pytest.param(
            [("secret", "rotated three hours ago and correct"),
             ("pods", "restarted 20 min ago, login refused since")], {}, "rollout_restart",
            id="pods-younger-than-the-repair"),
        pytest.param(
            [("requests/s", "9k, usually 300, all with one user agent"),
             ("pods", "all at their CPU limit")], {}, "scale_deployment", id="bots"),
        pytest.param(
            [("exec", "4 million files below spool, the first from Monday 09:10"),
             ("configmap", "keep_all to true on Monday 09:10, left over from a test"),
             ("inodes free", "1 %")],
            {"persistentvolumeclaim": "d-0"}, "delete_failed_pods", id="left-over-setting"),
        pytest.param(
            [("get pods", "30 Evicted, all from Sunday; another one every few minutes"),
             ("nodes", "DiskPressure True")], {}, "delete_failed_pods", id="more-left-overs"),
        pytest.param(
            [("log", "password refused since 12:00"),
             ("secret", "unchanged for a year; the database has had a new password since 12:00"),
             ("pods", "30 days old")], {}, "rollout_restart", id="the-source-is-old"),
        pytest.param(
            [("get pods", "d-1 0/1, ContainerCreating, pulling an image of 9 GB for 70 s"),
             ("earlier starts", "ready after about 4 min; the others serve")],
            {"pod": "d-1"}, "restart_pod", id="still-starting-in-time"),
        pytest.param(
            [("d-1", "hangs, but holds the last copy of nine shards"),
             ("other pods", "d-0 and d-2 are down")], {"pod": "d-1"}, "restart_pod",
            id="the-last-copy"),
        pytest.param(
            [("pending", "asks for 16 GPUs in one pod; the machines have 8 each"),
             ("GPUs", "24 of 24 allocated"), ("pool", "3 of at most 10")], {},
            "scale_gpu_node_pool", id="fits-no-machine"),
        pytest.param(
            [("free", "60 % to 5 % since 09:00"), ("class", "allowVolumeExpansion true")],
            {"persistentvolumeclaim": "d-0"}, "expand_pvc", id="fills-within-hours"),
        pytest.param(
            [("free", "4 %"), ("log", "a dump for each call since the release at 14:58"),
             ("class", "expandable")],
            {"persistentvolumeclaim": "d-0"}, "expand_pvc", id="a-release-fills-it"),
        pytest.param(
            [("deploy", "0/0"), ("note", "switched off by the owning team, removal on the 30th")],
            {}, "scale_deployment", id="zero-is-wanted"),
        pytest.param(
            [("lag", "grows on all 8 partitions since the campaign"),
             ("consumers", "8, each at its CPU limit")], {}, "scale_deployment",
            id="no-partition-left"),
        pytest.param(
            [("queue", "100 to 4000 since the sale; CPU 0.98"),
             ("note", "singleton, never run two")], {}, "scale_deployment", id="may-run-only-once"),
        pytest.param(
            [("errors", "0 until 12:31, 0.2 since"),
             ("deploys", "12:30 version 8.1 drops column rate and copies it")], {}, "rollout_undo",
            id="no-way-back"),
        pytest.param(
            [("kernel log", "I/O errors on sda"),
             ("node n-3", "do not drain before the owner signs")], {"node": "n-3"},
            "cordon_drain_node", id="on-hold"),
    ],
)  # fmt: skip
async def test_a_fact_that_rules_an_action_out_bars_its_story(
    evidence: list[tuple[str, str]], labels: dict[str, str], harm: str
) -> None:
    told = reading(*evidence, **labels).told
    assert told is not None
    assert harm not in told.borne_out
    assert await _decided(evidence, **labels) != harm


def test_zero_by_mistake_is_not_wanted() -> None:
    zero = ("deploy", "0/0")
    assert outcome(zero, ("audit", "scaled to 0 by a night job meant for staging")) == (
        "scale_deployment"
    )
    assert outcome(zero, ("annotation", "seasonal, runs in winter only")) == "none"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1/1; it had 6 until 13:02", 6, id="had-until"),
        pytest.param("scaled down replica set x-5 from 14 to 2", 14, id="from-to"),
        pytest.param("2 replicas, was 5", 5, id="was"),
        pytest.param("3/3; 9 until this morning", 9, id="until"),
        pytest.param("1/1 ready; the documented floor is 3", 3, id="floor"),
        pytest.param("had 6 pods until 13:02, had 8 pods until 12:00", None, id="two-numbers"),
        pytest.param("0/0", None, id="unknown"),
        pytest.param("1/1, ready until 13:02", None, id="a-time-is-no-number"),
    ],
)
def test_the_replicas_of_before_are_read_where_one_number_is_named(
    text: str, expected: int | None
) -> None:
    workload = reading(("get deploy", text)).facts["workload"]
    assert isinstance(workload, dict)
    assert workload.get("replicas_before") == expected


async def test_what_a_list_calls_by_other_names_is_not_the_subjects() -> None:
    slow = ("p99 of search", "40 ms until 09:30, 900 ms since")
    own = "09:29 search loads each facet by itself"
    other = ("deploys", f"{own}; 10:15 edge cache headers")
    same = ("deploys", f"{own}; 10:15 search cache headers")
    assert await _decided([slow, other], service="search") == "rollout_undo"
    assert await _decided([slow, same], service="search") != "rollout_undo"


@pytest.mark.parametrize(
    ("evidence", "mark"),
    [
        pytest.param(("hpa", "12 of 12, 96 %/70 %"), "#over_target", id="over-target"),
        pytest.param(("hpa", "12 of 12, 66 %/70 %"), "", id="below-target"),
        pytest.param(("log", "body 12 MB above max_body 10 MB"), "#over_limit", id="over-limit"),
        pytest.param(("log", "body 9 MB, max_body 10 MB"), "", id="below-limit"),
        pytest.param(("free", "60 % at 08:00, 4 % at 11:00"), "#fills_today", id="in-hours"),
        pytest.param(("free", "9 % at 08:00, 8 % at 20:00"), "", id="evenly"),
    ],
)
def test_figures_are_compared_with_their_limits(evidence: tuple[str, str], mark: str) -> None:
    items = [read_item("", *evidence)]
    assert limits.marks_of(items) == ({mark} if mark else set())
