"""What the mutation run takes out: every check, clause, fence and step, by rule alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest

# At the end: the checkout's other folders must not hide an installed package of the same name.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tiphys.workflow_templates.catalogue import every
from tools.mutants.copies import MUTATED, ROOT, Copy
from tools.mutants.kept import Kept
from tools.mutants.lane import TRIES, Lane, Traced, told_apart
from tools.mutants.reach import reachable
from tools.mutants.rules import Rule, mutants
from tools.mutants.table import Row, commit_of, markdown
from tools.mutants.tests import Watched, chosen, files_about, first_failed, watched

ACTION = '''
class Drain(Action):
    reversible = True

    def precheck(self, run):
        return self.look(run)

    def rollback(self, run) -> Report:
        """Put it back."""
        if not self.ours(run) or self.gone(run):
            return refused("not ours")
        self.write(run)
        return Report(Result.UNDONE, "back", {})

    def ours(self, run) -> bool:
        return run.uid == self.uid and run.mark == self.mark
'''


BY_THREE = [Watched("tests/unit/test_it.py::test_it", 0.5, frozenset({("drain", 3)}))]


def taken_out(text: str, module: str = "drain", *functions: str) -> list[tuple[str, str]]:
    chosen = frozenset(functions)
    return [(one.rule.value, one.gone) for one in mutants(module, dedent(text), chosen)]


def test_a_step_is_idle_a_check_removed_each_clause_and_each_call() -> None:
    found = taken_out(ACTION, "drain", "Drain.rollback")
    assert found[0][0] == Rule.STEP
    assert (Rule.CHECK, "not self.ours(run) or self.gone(run)") in found
    assert (Rule.CLAUSE, "not self.ours(run)") in found
    assert (Rule.CLAUSE, "self.gone(run)") in found
    assert (Rule.CALL, "self.write(run)") in found
    assert len(found) == 5


def test_an_idle_rollback_says_that_it_was_undone() -> None:
    first = next(iter(mutants("drain", ACTION, frozenset({"Drain.rollback"}))))
    assert "return Report(Result.UNDONE" in first.text
    compile(first.text, "drain", "exec")


def test_what_answers_yes_or_no_answers_always_the_same_or_without_a_clause() -> None:
    found = taken_out(ACTION, "drain", "Drain.ours")
    assert found.count((Rule.CHECK, "return run.uid == self.uid and run.mark == self.mark")) == 2
    assert (Rule.CLAUSE, "run.uid == self.uid") in found
    assert (Rule.CLAUSE, "run.mark == self.mark") in found


def test_every_fence_of_a_write_is_left_out_once() -> None:
    text = """
    def patch(obj):
        tests = [{"op": "test", "path": "/metadata/uid", "value": obj}]
        body = {"kind": "DeleteOptions", "preconditions": {"uid": obj}}
        fence = {key: obj[key] for key in ("name", "uid", "resourceVersion")}
        return [*tests, body, fence]
    """
    found = taken_out(text, "cluster", "patch")
    assert [rule for rule, _ in found] == [Rule.FENCE] * 5
    assert {gone for _, gone in found} >= {'"uid"', '"resourceVersion"', '{"uid": obj}'}
    assert not taken_out(text, "elsewhere", "patch")


def test_every_mutant_of_the_catalogue_is_python_and_every_action_has_its_four_steps() -> None:
    folder = ROOT / MUTATED
    idle = 0
    for module, functions in reachable(folder).items():
        for one in mutants(module, (folder / f"{module}.py").read_text(), functions):
            compile(one.text, one.name, "exec")
            idle += one.rule is Rule.STEP
    assert idle == 4 * len(every())


def test_a_copy_has_one_change_at_a_time(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy")
    place = tmp_path / "copy" / "tiphys" / MUTATED
    copy.change({"mark": "1", "fenced": "2"})
    copy.change({"fenced": "3"})
    assert (place / "fenced.py").read_text() == "3"
    assert (place / "mark.py").read_text() == (ROOT / MUTATED / "mark.py").read_text()


def test_a_test_that_failed_may_have_spaces_in_its_name() -> None:
    name = "tests/unit/test_nodes.py::test_it_stays[no gpu]"
    assert first_failed(f"== summary ==\nFAILED {name} - Failed: DID NOT RAISE\n") == name
    assert first_failed(f"ERROR {name}\n1 error in 2s\n") == name
    assert not first_failed("2 passed in 2s\n")


def kept_in(root: Path) -> Kept:
    return Kept(root / "kept", root)


def test_what_was_found_is_known_to_the_next_run_while_the_code_is_the_same(
    tmp_path: Path,
) -> None:
    (tmp_path / MUTATED).mkdir()
    code = tmp_path / MUTATED / "drain.py"
    code.write_text(ACTION)
    first, second, *_ = mutants("drain", ACTION, frozenset({"Drain.rollback"}))
    lines = frozenset({("drain", 3)})
    kept_in(tmp_path).keep_traces([Traced("drain", "run heals", 1.5, "", lines)])
    kept_in(tmp_path).keep(Row(first, "drain", "run heals", "NotProvenError"))
    kept_in(tmp_path).keep(Row(second, "drain", "", ""))
    again = kept_in(tmp_path)
    assert again.row(first) == Row(first, "drain", "run heals", "NotProvenError")
    assert again.row(second) is None, "what survived is tried again"
    assert again.traces() == [Traced("drain", "run heals", 1.5, "", lines)]
    code.write_text(ACTION + "\n")
    assert kept_in(tmp_path).row(first) is None
    assert kept_in(tmp_path).traces() == []


def test_what_a_test_found_is_tried_again_when_there_is_no_such_test_any_more(
    tmp_path: Path,
) -> None:
    tests = tmp_path / "tests" / "unit" / "test_drain.py"
    tests.parent.mkdir(parents=True)
    tests.write_text("class TestDrain:\n    def test_it(self): ...\n")
    one = next(iter(mutants("drain", ACTION, frozenset({"Drain.rollback"}))))
    found_by = "tests/unit/test_drain.py::TestDrain::test_it[1-a b]"
    kept_in(tmp_path).keep(Row(one, "", found_by))
    assert kept_in(tmp_path).row(one) == Row(one, "", found_by)
    tests.write_text("def test_another(): ...\n")
    assert kept_in(tmp_path).row(one) is None


def test_tests_that_passed_are_not_asked_again_until_they_or_what_is_beside_them_change(
    tmp_path: Path,
) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    file, beside = "tests/unit/test_it.py", tmp_path / "tests" / "unit" / "helpers.py"
    (tmp_path / file).write_text("one")
    beside.write_text("two")
    kept = kept_in(tmp_path)
    assert kept.watched(file) is None
    kept.keep_watched(file, BY_THREE)
    assert kept_in(tmp_path).watched(file) == BY_THREE
    (tmp_path / "tests" / "unit" / "test_other.py").write_text("three")
    assert kept.watched(file) == BY_THREE
    beside.write_text("another")
    assert kept.watched(file) is None
    kept.keep_watched(file, BY_THREE)
    (tmp_path / file).write_text("changed")
    assert kept.watched(file) is None
    kept.keep_watched(file, BY_THREE)
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "api.py").write_text("broken")
    assert kept_in(tmp_path).watched(file) is None, "they may fail without a mutant"


def test_tests_that_passed_are_known_in_another_checkout_of_the_same_code(tmp_path: Path) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", "tests/unit/test_it.py"
    (here / "tests" / "unit").mkdir(parents=True)
    (here / file).write_text("one")
    kept_in(here).keep_watched(file, BY_THREE)
    shutil.copytree(here, there)
    assert kept_in(there).watched(file) == BY_THREE


def test_a_mutant_is_shown_to_the_tests_that_come_by_it_the_quick_ones_first() -> None:
    step, *_, check = mutants("drain", ACTION, frozenset({"Drain.precheck", "Drain.ours"}))
    [line, *_] = check.fires
    by = frozenset({("drain", line)})
    slow, quick = Watched("slow", 2.0, by), Watched("quick", 0.1, by)
    long, elsewhere = Watched("long", 90.0, by), Watched("elsewhere", 0.1, frozenset({("a", 1)}))
    assert [*chosen(check, [slow, elsewhere, long, quick])] == ["quick", "slow"]
    assert not [*chosen(step, [slow, quick])], "the kit has to find it"


OBSERVED = """
import subprocess, sys
from tiphys.workflow_templates.quantities import amount

def test_of_its_own():
    amount("1Gi")

def test_by_a_step():
    said = "from tiphys.workflow_templates.pointers import at; at({}, '/a')"
    subprocess.run([sys.executable, "-c", said], check=True)

def test_that_fails():
    assert amount("1Gi") == 0
"""


def test_where_tests_and_the_steps_they_start_come_by_is_seen_of_those_that_pass(
    tmp_path: Path,
) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(OBSERVED)
    found = {one.test.rpartition("::")[2]: one for one in watched(str(file), Copy(tmp_path / "c"))}
    modules = {name: {module for module, _ in one.lines} for name, one in found.items()}
    assert modules.keys() == {"test_of_its_own", "test_by_a_step"}
    assert "quantities" in modules["test_of_its_own"] - modules["test_by_a_step"]
    assert "pointers" in modules["test_by_a_step"] - modules["test_of_its_own"]


def test_tests_speak_of_what_a_helper_beside_them_works_with() -> None:
    """The worlds of the drains name the action; the files of tests do not."""
    assert "tests/world/draining/test_steps_draining.py" in files_about("draining")
    assert "tests/world/draining/test_steps_draining.py" not in files_about("claim_patch")


HELD_UP = "HeldUpError: it did not begin within 6 s"
LONGER = "Coming between took longer than a step waits"
IN_VAIN = "InVainError: Waited in vain: for the pod"
REFUSED = "NewConnectionError: [Errno 111] Connection refused"
SILENT = "SilentStepError: act did not end within 40 s"


class Scripted:
    """A lane whose answers are given, for each world in turn."""

    def __init__(self, *worlds: tuple[Sequence[str], str]) -> None:
        self.worlds = [*worlds]
        self.said = iter(worlds[0][0])

    def ask(self, mutated: bool) -> str:
        return next(self.said) if mutated else self.worlds[0][1]

    def begin_anew(self) -> None:
        del self.worlds[0]
        self.said = iter(self.worlds[0][0])

    def verdict(self) -> str:
        return told_apart(self.ask, self.begin_anew)


@pytest.mark.parametrize("busy", [HELD_UP, LONGER, IN_VAIN, REFUSED])
def test_what_a_busy_machine_causes_is_asked_again(busy: str) -> None:
    assert not Scripted(([busy] * (TRIES - 1) + [""], "")).verdict()
    assert (
        Scripted(([busy, "NotProvenError: it acted"], "")).verdict() == "NotProvenError: it acted"
    )


def test_what_never_ends_is_found_while_the_code_as_it_is_is_proven() -> None:
    assert Scripted(([SILENT] * TRIES, "")).verdict() == SILENT


def test_in_a_broken_world_nothing_is_found_and_another_world_is_asked() -> None:
    broken = [IN_VAIN] * TRIES, IN_VAIN
    assert not Scripted(broken, ([""], "")).verdict(), "it is proven there"
    assert not Scripted(broken, ([IN_VAIN], IN_VAIN)).verdict(), "nobody can tell"
    assert Scripted(broken, ([SILENT], "")).verdict() == SILENT


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_a_lane_whose_world_has_ended_finds_nothing_and_goes_on_in_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    text = (ROOT / MUTATED / "restart_pod.py").read_text()
    idle = next(iter(mutants("restart_pod", text, frozenset({"RestartPod.rollback"}))))
    lane = Lane()
    before = lane.copy.folder
    lane.world.close()
    try:
        ask = partial(lane.ask_of, idle, "restart-pod", "refuses after notAfter")
        assert not told_apart(ask, lane.begin_anew), "it does not come by"
        assert not before.exists()
        assert os.environ["PYTHONPATH"] == str(lane.copy.folder)
        changed = lane.copy.folder / "tiphys" / MUTATED / "restart_pod.py"
        assert changed.read_text() == idle.text
        lane.ask_of(idle, "restart-pod", "no such property", False)
        assert changed.read_text() == text
    finally:
        lane.world.close()


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_the_page_says_of_which_state_of_the_code_it_is(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.check_output(["git", *who, *words], cwd=tmp_path, text=True).strip()

    assert commit_of(tmp_path) == "unknown"
    git("init", "-q")
    (tmp_path / MUTATED).mkdir()
    (tmp_path / MUTATED / "drain.py").write_text(ACTION)
    git("add", ".")
    git("commit", "-q", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert commit_of(tmp_path) == f"`{head}`, clean"
    (tmp_path / MUTATED / "drain.py").write_text("")
    assert commit_of(tmp_path) == f"`{head}`, with changes"
    state = kept_in(tmp_path).state
    page = markdown([], state, commit_of(tmp_path))
    assert f"State of the code: `{state}`; commit: `{head}`, with changes.\n" in page
