"""The command `tiphys eval`."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Optional

import typer

from tiphys.service.errors import UsageError

if TYPE_CHECKING:
    from tiphys.service.evaluation.measure import Figures

_FIGURES: Final = (
    ("ac_at_1", "AC@1"),
    ("ac_at_3", "AC@3"),
    ("avg_at_5", "Avg@5"),
    ("silent", "silent"),
)


def evaluate(
    paths: Annotated[
        list[Path], typer.Argument(help="Folders and files with cases (docs/evaluation.md).")
    ],
    reasoner: Annotated[
        str, typer.Option(help="Who decides runbook cases and scenarios: playbooks or model.")
    ] = "playbooks",
    replay: Annotated[
        Optional[Path],
        typer.Option(help="Recorded exchanges, played in the model's place (docs/model.md)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    compare: Annotated[
        Optional[Path], typer.Option(help="An earlier run's JSON: say what became of each case.")
    ] = None,
) -> None:
    """Run recorded cases whose answer is known; count how often it was right."""
    from tiphys.service.evaluation.deciders import decider
    from tiphys.service.evaluation.decisions import decided
    from tiphys.service.evaluation.judging import moved, report
    from tiphys.service.evaluation.measure import measured, pooled, sets_under

    earlier = _earlier(compare) if compare else None
    found = [one for path in paths for one in sets_under(path)]
    verdicts = decided(paths, decider(reasoner, replay))
    if not found and not verdicts:
        raise UsageError(
            f"no recorded set at or below {', '.join(str(p) for p in paths)}; "
            "docs/evaluation.md says what one looks like"
        )
    every = [measured(one) for one in found]
    if len(every) > 1:
        every.append(pooled("all", every))
    told = [figures.as_json() for figures in every]
    decisions = [one.as_json() for one in verdicts]
    compared: list[str] = []
    if earlier is not None:
        compared = _compared(earlier["root_causes"], told)
        compared += _matched(earlier["decisions"], decisions, moved)
    if as_json:
        document: dict[str, Any] = {"root_causes": told, "decisions": decisions}
        if earlier is not None:
            document["compared"] = compared
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        return
    for figures in every:
        sys.stdout.write(_table(figures, misses=figures.name != "all" or len(every) == 1))
    for one in verdicts:
        sys.stdout.write(report(one))
    sys.stdout.write("".join(f"{line}\n" for line in compared))


def _share(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"


def _table(figures: "Figures", *, misses: bool) -> str:
    told = figures.as_json()
    shares = "  ".join(f"{label} {_share(told[key])}" for key, label in _FIGURES)
    lines = [
        f"{figures.name}: {len(figures.outcomes)} faults, {figures.quiet} quiet stretches",
        f"  {shares}",
    ]
    if misses:
        lines += [
            f"  missed: {o.name}: {o.answer} comes {o.place or 'nowhere'}: {o.why}"
            for o in figures.outcomes
            if o.place != 1
        ]
        lines += [f"  false alarm: {alarm}" for alarm in figures.alarms]
    return "\n".join(lines) + "\n"


def _earlier(path: Path) -> dict[str, Sequence[Mapping[str, Any]]]:
    try:
        told = json.loads(path.read_text())
        found = {key: told.get(key, []) for key in ("root_causes", "decisions")}
        assert told.keys() & found.keys()
        for key, place in (("root_causes", "place"), ("decisions", "decided")):
            for one in found[key]:
                assert isinstance(one["set"], str)
                assert all("case" in c and place in c for c in one["cases"])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise UsageError(f"{path}: not what `tiphys eval --json` wrote") from error
    return found


def _matched(
    earlier: Sequence[Mapping[str, Any]],
    now: Sequence[Mapping[str, Any]],
    moved: Callable[[Any, Any], list[str]],
) -> list[str]:
    """Compare sets of decisions by name."""
    before = {one["set"]: one for one in earlier}
    lines: list[str] = []
    for one in now:
        old = before.pop(one["set"], None)
        lines += moved(old, one) if old else [f"{one['set']}: not in the earlier run"]
    return lines + [f"{name}: no longer in this run" for name in before]


def _compared(earlier: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which figures moved, and every case that did."""
    before = {one["set"]: one for one in earlier}
    lines: list[str] = []
    for one in now:
        name = one["set"]
        if name not in before:
            lines.append(f"{name}: not in the earlier run")
            continue
        old = before.pop(name)
        moved = [
            f"{label} {_share(old.get(key))} -> {_share(one[key])}"
            for key, label in _FIGURES
            if _share(old.get(key)) != _share(one[key])
        ]
        lines.append(f"{name}: {', '.join(moved) or 'the same figures'}")
        if name == "all":
            continue
        places = {case["case"]: case["place"] for case in old["cases"]}
        for case in one["cases"]:
            was = places.get(case["case"])
            if was is not None and was != case["place"]:
                lines.append(
                    f"  {case['case']}: place {was or 'none'} -> {case['place'] or 'none'}"
                )
    lines += [f"{name}: no longer in this run" for name in before]
    return lines
