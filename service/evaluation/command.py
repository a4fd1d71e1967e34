"""The command `tiphys eval`."""

import json
import sys
from collections.abc import Mapping, Sequence
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
        list[Path], typer.Argument(help="Folders with recorded sets (docs/evaluation.md).")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    compare: Annotated[
        Optional[Path], typer.Option(help="An earlier run's JSON: say what became of each case.")
    ] = None,
) -> None:
    """Run recorded faults through the search for causes; count how often it was right."""
    from tiphys.service.evaluation.measure import measured, pooled, sets_under

    earlier = _earlier(compare) if compare else None
    found = [one for path in paths for one in sets_under(path)]
    if not found:
        raise UsageError(
            f"no recorded set at or below {', '.join(str(p) for p in paths)}; "
            "docs/evaluation.md says what one looks like"
        )
    every = [measured(one) for one in found]
    if len(every) > 1:
        every.append(pooled("all", every))
    told = [figures.as_json() for figures in every]
    if as_json:
        document: dict[str, Any] = {"root_causes": told}
        if earlier is not None:
            document["compared"] = _compared(earlier, told)
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        return
    for figures in every:
        sys.stdout.write(_table(figures, misses=figures.name != "all" or len(every) == 1))
    for line in _compared(earlier, told) if earlier is not None else ():
        sys.stdout.write(f"{line}\n")


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


def _earlier(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        told = json.loads(path.read_text())["root_causes"]
        for one in told:
            assert isinstance(one["set"], str)
            assert all("case" in c and "place" in c for c in one["cases"])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UsageError(f"{path}: not what `tiphys eval --json` wrote") from error
    return told


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
