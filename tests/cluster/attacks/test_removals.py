"""No validation is there for nothing: without it, some attack comes through.

Each is replaced by `true`, one at a time, in the attackers' own installation; then the attacks that
it alone refused are tried again until one is accepted.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from against_runs import STOPS, stop
from against_workflows import NEW, WORKFLOWS
from asking import Request, Who, until
from attack import post
from fort import Fort
from garrison import workflow
from siege import Day

SECONDS = 30
"""For a changed policy to be in force and the attacks to be tried, on a busy machine."""
Tried = Sequence[tuple[Request, Who]]


def refused_by(fort: Fort, day: Day) -> Mapping[str, Tried]:
    """Give, for each policy and message, the requests that were refused so.

    Those that only this policy can have refused come first.
    """
    found: dict[str, list[tuple[Request, Who]]] = {}
    for certain in (True, False):
        for one in day.refused:
            for wide, answers in ((False, one.own), (True, one.wide)):
                if answers and one.certain(wide=wide) is certain:
                    for job, answer in zip(fort.jobs(one, wide=wide), answers, strict=True):
                        found.setdefault(answer.wall, []).append(job)
    return found


def checked(fort: Fort, policy: str, attacks: Mapping[str, Tried]) -> Iterator[str]:
    """Take one validation after the other away; give those that nothing needed."""
    rules = fort.policies[policy]["spec"]["validations"]
    try:
        for index, rule in enumerate(rules):
            name = f"{policy}: {rule['message']}"
            tried = attacks.get(name, ())
            if not tried:
                yield f"{name} (no attack meets it)"
                continue
            fort.weaken(policy, index)
            try:
                until(name, lambda tried=tried: passed(fort, tried), SECONDS)
            except AssertionError:
                last = fort.wire.ask(*tried[0])
                yield f"{name} (still {last.status} {last.wall or last.message})"
    finally:
        fort.weaken(policy, None)


def passed(fort: Fort, tried: Tried) -> bool:
    """Say whether one of them comes through."""
    return any(came_through(fort, *one) for one in tried)


def came_through(fort: Fort, request: Request, who: Who) -> bool:
    """Say whether nothing refused it; a command that is let in then fails on its protocol."""
    answer = fort.wire.ask(request, who)
    return answer.status < 300 or (answer.status == 400 and "Upgrade" in answer.message)


def test_each_validation_is_needed(fort: Fort, day: Day) -> None:
    attacks = refused_by(fort, day)
    names = [name for name in fort.policies if name != "stop"]
    apart = ["service", "act"]
    together = [name for name in names if name not in apart and not name.startswith("act-")]
    last = [name for name in names if name.startswith("act-")]
    idle: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        # Those that may judge the same request take turns, or one's absence would cover another's.
        for group in (together, ["service"], ["act"], last):
            for found in pool.map(lambda name: list(checked(fort, name, attacks)), group):
                idle += found
    assert not idle, "\n".join(["not needed:", *idle])


def test_the_stop_is_needed(fort: Fort) -> None:
    plan, launcher = post(WORKFLOWS, workflow(NEW)), fort.who("launcher", wide=False)
    try:
        fort.wire.want("POST", STOPS, stop("stop-weak"))
        until("the stop", lambda: fort.wire.ask(plan, launcher).wall.startswith("stop: "))
        fort.weaken("stop", 0)
        until("a plan despite the stop", lambda: fort.wire.ask(plan, launcher).status == 201)
    finally:
        fort.weaken("stop", None)
        until("the stop again", lambda: fort.wire.ask(plan, launcher).wall.startswith("stop: "))
        fort.wire.ask(Request("DELETE", f"{STOPS}/stop-weak", stored=True))
    until("work to go on", lambda: fort.wire.ask(plan, launcher).status == 201)
