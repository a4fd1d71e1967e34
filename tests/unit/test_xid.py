"""What the Xid table promises: every code has an answer, and more evidence never weakens it."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tiphys.policies.xid import (
    CATALOGUE,
    REMEDIES,
    REPEATS,
    Bucket,
    Device,
    Recovery,
    Remedy,
    XidEvent,
    judge,
    remedy_for,
)

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GPU = "GPU-5f1c"
BY_HAND = {
    Remedy.NOTHING: {14, 37, 38, 43, 44, 45, 63, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152,
                     153, 157, 160, 161},
    Remedy.RESTART_APPLICATION: {8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 80, 82, 94, 139,
                                 *range(68, 73), 75, 76, 77, *range(83, 87), 88, 89,
                                 *range(96, 106), *range(126, 136)},
    Remedy.DRAIN_AND_RESET: {46, 48, 62, 64, 74, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156,
                             158, 171, 172},
    Remedy.REPLACE_NODE: {79, 151},
}  # fmt: skip
"""Read off the catalogue by eye; every other code is for a human."""


def event(xid: int, *, minutes: float = 0, gpu: str = GPU, **more: object) -> XidEvent:
    at = START + timedelta(minutes=minutes)
    return XidEvent.model_validate({"at": at, "node": "gpu-1", "gpu": gpu, "xid": xid, **more})


def remedy(*events: XidEvent) -> Remedy:
    (found,) = judge(events).values()
    return found.remedy


@pytest.mark.parametrize("code", range(1, 173))
def test_every_row_of_the_catalogue_maps(code: int) -> None:
    wanted = next((r for r, codes in BY_HAND.items() if code in codes), Remedy.ESCALATE)
    assert CATALOGUE[code].code == code
    assert CATALOGUE[code].mnemonic
    assert remedy_for(code) is remedy(event(code)) is wanted


def test_the_table_has_every_row_and_no_bucket_too_many() -> None:
    assert list(CATALOGUE) == [*range(1, 173)]
    assert set(REMEDIES) == set(Bucket) == {row.immediate for row in CATALOGUE.values()}


@pytest.mark.parametrize("code", [-1, 0, 173, 999])
def test_what_the_catalogue_does_not_have_is_for_a_human(code: int) -> None:
    assert remedy_for(code) is Remedy.ESCALATE
    (found,) = judge([event(code), event(48)]).values()
    assert found.remedy is Remedy.ESCALATE
    assert found.reason.endswith(f"escalate: Xid {code} (not in the catalogue)")
    assert found.codes == (code,)


def test_a_stronger_remedy_supersedes_a_weaker_one_and_the_reason_names_it() -> None:
    (found,) = judge([event(31), event(45), event(79), event(48)]).values()
    assert found.remedy is Remedy.REPLACE_NODE
    assert found.codes == (79,)
    fell = "Xid 79 (ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS)"
    assert found.reason == f"GPU gpu-5f1c of node gpu-1: replace node: {fell}"


@pytest.mark.parametrize(
    ("recovery", "wanted"),
    [
        (None, Remedy.ESCALATE),
        (Recovery.NONE, Remedy.NOTHING),
        (Recovery.DRAIN_P2P, Remedy.ESCALATE),
        (Recovery.DRAIN_AND_RESET, Remedy.DRAIN_AND_RESET),
        (Recovery.GPU_RESET, Remedy.DRAIN_AND_RESET),
        (Recovery.NODE_REBOOT, Remedy.REPLACE_NODE),
    ],
)
def test_xid_154_asks_for_what_its_text_says(recovery: Recovery | None, wanted: Remedy) -> None:
    assert remedy(event(154, recovery=recovery)) is wanted


def test_a_recovery_beside_another_code_means_nothing() -> None:
    assert remedy(event(48, recovery="None")) is Remedy.DRAIN_AND_RESET


# --- repeats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [13, 31])
def test_the_third_time_within_a_day_the_device_is_suspect(code: int) -> None:
    twice = [event(code), event(code, minutes=600)]
    assert remedy(*twice) is Remedy.RESTART_APPLICATION
    (found,) = judge([*twice, event(code, minutes=24 * 60)]).values()
    assert found.remedy is Remedy.DRAIN_AND_RESET
    assert "3 times in 24 h" in found.reason
    assert remedy(*twice, event(code, minutes=24 * 60 + 1)) is Remedy.RESTART_APPLICATION


@pytest.mark.parametrize("minutes", list(permutations([0, 5, 600, 1439])))
def test_repeats_count_in_whatever_order_they_are_told(minutes: tuple[int, ...]) -> None:
    (found,) = judge(event(13, minutes=m) for m in minutes).values()
    assert (found.remedy, "3 times" in found.reason) == (Remedy.DRAIN_AND_RESET, True)


@pytest.mark.parametrize("code", [13, 31])
def test_the_many_lines_of_one_fault_count_once(code: int) -> None:
    assert remedy(*(event(code, minutes=i / 60) for i in range(500))) is Remedy.RESTART_APPLICATION
    # What trickles counts again as soon as it is far enough from the last that counted.
    assert remedy(*(event(code, minutes=i) for i in range(20))) is Remedy.RESTART_APPLICATION
    assert remedy(*(event(code, minutes=i) for i in range(21))) is Remedy.DRAIN_AND_RESET


def test_two_codes_and_two_devices_do_not_add_up() -> None:
    mixed = [event(13), event(31, minutes=20), event(13, minutes=40)]
    assert remedy(*mixed) is Remedy.RESTART_APPLICATION
    apart = judge(event(13, minutes=20 * i, gpu=f"GPU-{i}") for i in range(5))
    assert {f.remedy for f in apart.values()} == {Remedy.RESTART_APPLICATION}
    assert set(REPEATS) == {13, 31}


# --- devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ["PCI:0000:3B:00", "0000:3b:00.0", "00000000:3B:00.0", "3b:00.0", " 0000:3B:00 "],
)
def test_one_address_is_one_device_however_it_is_written(written: str) -> None:
    assert set(judge([event(13, gpu=written)])) == {Device("gpu-1", "0000:3b:00")}


def test_addresses_are_told_apart() -> None:
    other = event(79).model_copy(update={"node": "gpu-2"})
    names = ["0000:3b:00", "0001:3b:00", "0000:3c:00", "0000:3b:01", "GPU-1", "GPU-2"]
    assert len(judge([other, *(event(13, gpu=name) for name in names)])) == 7


def test_an_event_without_a_device_or_a_time_zone_is_refused() -> None:
    for wrong in ({"gpu": ""}, {"node": ""}, {"at": START.replace(tzinfo=None)}, {"pod": "x"}):
        with pytest.raises(ValidationError):
            XidEvent.model_validate({**event(13).model_dump(), **wrong})
    assert judge([]) == {}


# --- properties ---------------------------------------------------------------------------------

CODES = st.one_of(st.sampled_from([13, 31, 45, 48, 79, 94, 154]), st.integers(-1, 180))
EVENTS = st.builds(
    event,
    CODES,
    minutes=st.one_of(st.integers(0, 60), st.floats(0, 3000)),
    gpu=st.sampled_from(["GPU-1", "GPU-2", "0000:3b:00"]),
    node=st.sampled_from(["gpu-1", "gpu-2"]),
    recovery=st.sampled_from([None, *Recovery]),
)
MILD = EVENTS.filter(lambda e: remedy_for(e.xid, e.recovery) <= Remedy.RESTART_APPLICATION)
SOME = st.one_of(st.lists(EVENTS, max_size=12), st.lists(MILD, max_size=25))


@given(SOME, st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(events: list[XidEvent], random: object) -> None:
    shuffled = [*events]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(shuffled) == judge(events)


@given(SOME, st.one_of(EVENTS, MILD))
def test_one_more_event_never_weakens_a_remedy(events: list[XidEvent], one: XidEvent) -> None:
    before, after = judge(events), judge([*events, one])
    assert all(after[device].remedy >= found.remedy for device, found in before.items())
    assert after[Device(one.node, one.gpu)].remedy >= remedy_for(one.xid, one.recovery)


@given(SOME)
def test_every_device_is_judged_by_its_own_events_alone(events: list[XidEvent]) -> None:
    together = judge(events)
    assert set(together) == {Device(e.node, e.gpu) for e in events}
    for device, found in together.items():
        own = [e for e in events if Device(e.node, e.gpu) == device]
        assert judge(own) == {device: found}
