"""Reads sets of the Nezha kind: per-pod metrics each minute and a list of injected faults.

docs/evaluation.md describes the format. The time written out in a row is the collector's own clock;
where the row's stamp disagrees with it, the stamp was tampered with or shifted, and is not used.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from tiphys.agents.causes.bins import Matrix
from tiphys.agents.causes.signals import Kind, Scene, Signal, Window
from tiphys.service.evaluation.cases import FaultCase, QuietCase, UnreadableSetError

STEP: Final = 60.0
BEFORE: Final = 1
"""Bins of the window before the fault was put in: an alert never comes before its cause."""
AFTER: Final = 5
"""Bins from the fault on."""
SETTLING: Final = 1800.0
"""Seconds after the last fault from which on a day is taken for quiet."""
_SKEW: Final = 5.0
"""Seconds by which a row's stamp and its written time may differ."""

_COLUMNS: Final[Mapping[str, tuple[Kind, float]]] = {
    "CpuUsageRate(%)": (Kind.CPU, 0.01),
    "MemoryUsageRate(%)": (Kind.MEMORY, 0.01),
    "SyscallRead": (Kind.TRAFFIC, 1.0),
    "SyscallWrite": (Kind.TRAFFIC, 1.0),
    "NetworkReceiveBytes": (Kind.TRAFFIC, 1.0),
    "NetworkTransmitBytes": (Kind.TRAFFIC, 1.0),
    "PodServerLatencyP90(s)": (Kind.LATENCY, 1.0),
    "PodServerLatencyP95(s)": (Kind.LATENCY, 1.0),
    "PodServerLatencyP99(s)": (Kind.LATENCY, 1.0),
    "PodClientLatencyP90(s)": (Kind.OUTGOING, 1.0),
    "PodClientLatencyP95(s)": (Kind.OUTGOING, 1.0),
    "PodClientLatencyP99(s)": (Kind.OUTGOING, 1.0),
    "PodWorkload(Ops)": (Kind.REQUESTS, 1.0),
}
"""Columns that say something of the pod alone. Those of its node are not its own, those of its
calls to others are told better, call by call, by the files below."""
_CALLS: Final = {"source_50.csv": Kind.CALL_LATENCY, "destination_50.csv": Kind.LATENCY}


class NezhaDay:
    """One day: `<day>/metric/*.csv` and `<day>/<day>-fault_list.json`."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._folder = folder
        self._faults = _faults(folder)
        signals = [s for f in sorted((folder / "metric").glob("*_metric.csv")) for s in _pod(f)]
        pods = sorted({s.component for s in signals})
        self._calls = _calls(folder / "metric", pods)
        for name, kind in _CALLS.items():
            path = folder / "metric" / name
            signals += _edges(path, kind, pods, self._calls) if path.exists() else []
        if not signals:
            raise UnreadableSetError(f"{folder}: metric/ holds no file *_metric.csv with rows")
        self._signals = signals

    @staticmethod
    def recognises(folder: Path) -> bool:
        """Whether a folder is a day of this kind."""
        return (folder / "metric").is_dir() and any(folder.glob("*fault_list.json"))

    def faults(self) -> Iterator[FaultCase]:
        """Give each fault with what was recorded until a few minutes after it."""
        for at, pod, what in self._faults:
            yield FaultCase(f"{what} at {at:.0f}", self._scene(at), pod)

    def quiet(self) -> Iterator[QuietCase]:
        """Give the day's stretches well after its last fault."""
        if not self._faults:
            return
        at = max(at for at, _, _ in self._faults) + SETTLING
        end = max(float(np.asarray(s.points)[-1, 0]) for s in self._signals)
        while at + AFTER * STEP <= end:
            yield QuietCase(f"from {at:.0f}", (self._scene(at),))
            at += (BEFORE + AFTER) * STEP

    def _scene(self, at: float) -> Scene:
        window = Window(at - BEFORE * STEP, at + AFTER * STEP, STEP)
        seen: list[Signal] = []
        for signal in self._signals:
            points = np.asarray(signal.points)
            # What comes later is not known at the time.
            known = points[points[:, 0] < window.end]
            seen.append(Signal(signal.component, signal.kind, signal.name, known))
        return Scene(window, seen, self._calls)


def _faults(folder: Path) -> list[tuple[float, str, str]]:
    found: list[tuple[float, str, str]] = []
    for path in sorted(folder.glob("*fault_list.json")):
        try:
            hours = json.loads(path.read_text())
            found += [
                (float(f["inject_timestamp"]), str(f["inject_pod"]), str(f["inject_type"]))
                for faults in hours.values()
                for f in faults
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableSetError(
                f"{path}: not a list of faults by hour with inject_timestamp, inject_pod and "
                f"inject_type ({error})"
            ) from error
    return sorted(found)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str | None) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")


def _times(rows: list[dict[str, str]], stamp: str, written: str) -> Matrix:
    times: list[float] = []
    for row in rows:
        at = _number(row.get(stamp))
        try:
            clock = datetime.fromisoformat(row.get(written, "")[:19] + "+00:00").timestamp()
        except ValueError:
            clock = at
        times.append(at if abs(at - clock) <= _SKEW else clock)
    return np.array(times)


def _pod(path: Path) -> list[Signal]:
    rows = _rows(path)
    times = _times(rows, "TimeStamp", "Time")
    found: list[Signal] = []
    for column, (kind, unit) in _COLUMNS.items():
        if rows and column in rows[0]:
            values = np.array([_number(r[column]) * unit for r in rows])
            pod = rows[0].get("PodName") or path.name.removesuffix("_metric.csv")
            found.append(Signal(pod, kind, column, np.column_stack([times, values])))
    return found


def _component(service: str, pods: list[str]) -> str:
    """Give the one pod of a service; the service itself where it has several or none."""
    of_it = [pod for pod in pods if pod == service or pod.startswith(service + "-")]
    return of_it[0] if len(of_it) == 1 else service


def _calls(folder: Path, pods: list[str]) -> dict[str, list[str]]:
    calls: dict[str, list[str]] = {}
    path = folder / "dependency.csv"
    for row in _rows(path) if path.exists() else []:
        caller, callee = (_component(row.get(end, ""), pods) for end in ("Source", "Target"))
        # The file also says on which host a pod runs; a host is no component that answers calls.
        if caller in pods and callee in pods:
            calls.setdefault(caller, []).append(callee)
    return calls


def _edges(path: Path, kind: Kind, pods: list[str], calls: Mapping[str, list[str]]) -> list[Signal]:
    """Read latencies by call; a column is named `caller_callee`."""
    rows = _rows(path)
    times = _times(rows, "timestamp", "time")
    found: list[Signal] = []
    for column in rows[0] if rows else ():
        caller, _, callee = column.partition("_")
        target = _component(callee, pods)
        if callee and target in calls.get(_component(caller, pods), ()):
            values = np.array([_number(r[column]) for r in rows])
            name = f"{kind.value}, called by {caller}"
            found.append(Signal(target, kind, name, np.column_stack([times, values])))
    return found
