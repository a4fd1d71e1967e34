"""Verifying an export offline: every kind of tampering is found and the first bad record named."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tiphys.service.records import GENESIS, Record, record_hash, verify

Json = dict[str, Any]
COUNT = 7


def chain(count: int = COUNT, previous: str = GENESIS, first: int = 1) -> list[Json]:
    """Records as the service appends them."""
    made: list[Json] = []
    for seq in range(first, first + count):
        fields: Json = {
            "seq": seq,
            "at": f"2026-03-04T03:00:{seq:02}.000000Z",
            "event": "incident_moved",
            "incident_id": "inc-abcd2345" if seq % 2 else None,
            "actor": "tiphys",
            "body": {"reason": f"nº {seq}", "share": 0.5, "to": ["open", None, True, 1]},
            "previous": previous,
        }
        previous = record_hash(fields)
        made.append({**fields, "hash": previous})
    return made


def rehash(records: list[Json]) -> list[Json]:
    """Forge: make every hash fit again."""
    previous = GENESIS
    for record in records:
        fields = {**record, "previous": previous}
        del fields["hash"]
        previous = record_hash(fields)
        record |= {"previous": fields["previous"], "hash": previous}
    return records


def lines(records: list[Json]) -> list[str]:
    return [json.dumps(record, ensure_ascii=False) for record in records]


def test_an_untouched_record_is_good_and_its_head_is_told() -> None:
    records = chain()
    found = verify(lines(records))
    assert (found.records, found.head, found.problem) == (COUNT, records[-1]["hash"], None)


def test_it_does_not_matter_how_the_lines_are_spaced() -> None:
    records = chain()
    spaced = [json.dumps(record, indent=None, separators=(" , ", " : ")) for record in records]
    assert verify([*spaced[:3], "\n", *spaced[3:], ""]).problem is None


@pytest.mark.parametrize("text", [[], [""], ["\n", "  "]])
def test_an_empty_file_proves_nothing(text: list[str]) -> None:
    found = verify(text)
    assert (found.records, found.head) == (0, GENESIS)
    assert found.problem == "there is no record in it"


FORGED: Json = {
    "seq": 9,
    "at": "2026-03-04T03:00:59.000000Z",
    "event": "run_ended",
    "incident_id": "inc-other234",
    "actor": "mallory",
    "body": {"reason": "nº 4", "share": 0.5, "to": ["closed", None, True, 1]},
    "previous": "f" * 64,
    "hash": "f" * 64,
}


@pytest.mark.parametrize("field", sorted(Record.model_fields))
def test_an_edit_of_any_field_is_found_and_named(field: str) -> None:
    records = chain()
    records[3][field] = FORGED[field]
    found = verify(lines(records))
    assert found.records == 3
    assert found.head == records[2]["hash"], "the head of what is good"
    assert found.problem is not None
    assert "line 4" in found.problem


@pytest.mark.parametrize("field", sorted(Record.model_fields))
def test_a_missing_or_added_field_is_found_and_named(field: str) -> None:
    records = chain()
    del records[3][field]
    assert (verify(lines(records)).problem or "").startswith("line 4 is not a record")
    records = chain()
    records[3][f"{field}_too"] = 1
    assert (verify(lines(records)).problem or "").startswith("line 4 is not a record")


def _insert_copy(records: list[Json]) -> None:
    records.insert(3, copy.deepcopy(records[2]))


def _insert_fitting(records: list[Json]) -> None:
    """A new record that follows the third as it should, so that the fourth does not."""
    records.insert(3, chain(1, records[2]["hash"], 4)[0] | {"actor": "mallory"})
    fields = {k: v for k, v in records[3].items() if k != "hash"}
    records[3]["hash"] = record_hash(fields)


def _replace_fitting(records: list[Json]) -> None:
    """The fourth record forged, its own hash made to fit."""
    records[3]["body"] = {"reason": "nothing happened"}
    records[3]["hash"] = record_hash({k: v for k, v in records[3].items() if k != "hash"})


def _cut_line(records: list[Json]) -> None:
    records[3] = {"seq": 4}


@pytest.mark.parametrize(
    ("tamper", "good", "words"),
    [
        (lambda r: r.pop(3), 3, "record 5 (line 4) stands where record 4 should"),
        (lambda r: r.pop(0), 0, "record 2 (line 1) stands where record 1 should"),
        (lambda r: r.__delitem__(slice(2, 5)), 2, "record 6 (line 3)"),
        (lambda r: r.insert(3, r.pop(4)), 3, "record 5 (line 4)"),
        (lambda r: r.reverse(), 0, "record 7 (line 1)"),
        (_insert_copy, 3, "record 3 (line 4)"),
        (_insert_fitting, 4, "record 4 (line 5)"),
        (_replace_fitting, 4, "record 5 (line 5) does not follow the record before it"),
        (_cut_line, 3, "line 4 is not a record"),
    ],
)
def test_deletion_reordering_insertion_and_truncation_are_found(
    tamper: Callable[[list[Json]], object], good: int, words: str
) -> None:
    records = chain()
    tamper(records)
    found = verify(lines(records))
    assert found.records == good
    assert words in (found.problem or "")


def test_a_line_that_is_cut_off_is_found() -> None:
    text = lines(chain())
    text[-1] = text[-1][: len(text[-1]) // 2]
    found = verify(text)
    assert found.records == COUNT - 1
    assert f"line {COUNT}" in (found.problem or "")


def test_a_forged_tail_whose_hashes_fit_is_found_by_whoever_knows_the_head() -> None:
    records = chain()
    head = verify(lines(records)).head
    forged = copy.deepcopy(records)
    forged[3]["body"]["reason"] = "nothing happened"
    found = verify(lines(rehash(forged)))
    assert found.problem is None, "the chain alone cannot tell"
    assert found.head != head
    assert verify(lines(records[:-1])).head != head, "nor that the end is missing"


@pytest.mark.parametrize(
    "twin",
    ['"actor": "mallory", "actor": "tiphys"', '"actor": "tiphys", "actor": "tiphys"'],
)
def test_a_key_that_stands_twice_is_found(twin: str) -> None:
    """Two readers could read two records out of it."""
    text = lines(chain())
    text[3] = text[3].replace('"actor": "tiphys"', twin)
    assert "twice" in (verify(text).problem or "")


@pytest.mark.parametrize(
    ("written", "instead"),
    [('"seq": 4', '"seq": "4"'), ('"seq": 4', '"seq": 4.0'), ("0.5", "0.50000000000000001e0")],
)
def test_a_value_of_another_type_is_found(written: str, instead: str) -> None:
    text = lines(chain())
    assert written in text[3]
    text[3] = text[3].replace(written, instead)
    same_number = json.loads(instead.removeprefix('"seq": ')) == 0.5
    assert (verify(text).problem is None) is same_number


@pytest.mark.parametrize("line", ["NaN", "[]", "null", "{}", "\x00", "[" * 100_000, '{"seq": NaN}'])
def test_garbage_is_named_and_is_not_a_crash(line: str) -> None:
    text = lines(chain())
    text[3] = line
    found = verify(text)
    assert found.records == 3
    assert "line 4 is not a record" in (found.problem or "")


def test_a_number_that_json_does_not_know_is_named() -> None:
    text = lines(chain())
    text[3] = text[3].replace("0.5", "NaN")
    found = verify(text)
    assert found.records == 3
    assert "line 4" in (found.problem or "")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.integers(0, COUNT - 1), st.sampled_from(sorted(Record.model_fields)), VALUES)
def test_any_edit_of_any_field_is_found_at_its_record(where: int, field: str, value: Any) -> None:
    records = chain()
    assume(json.dumps(records[where][field]) != json.dumps(value))
    records[where][field] = value
    found = verify(lines(records))
    assert found.records == where
    assert f"line {where + 1}" in (found.problem or "")


@given(st.data())
def test_any_change_of_a_character_is_found_or_means_the_same(data: st.DataObject) -> None:
    text = lines(chain(3))
    line = data.draw(st.integers(0, 2))
    at = data.draw(st.integers(0, len(text[line]) - 1))
    character = data.draw(st.characters(codec="utf-8"))
    assume(character != text[line][at])
    changed = text[line][:at] + character + text[line][at + 1 :]
    found = verify([*text[:line], changed, *text[line + 1 :]])
    if found.problem is None:
        assert json.dumps(json.loads(changed)) == json.dumps(json.loads(text[line]))
    else:
        assert found.records == line


@given(st.permutations(range(COUNT)), st.integers(0, COUNT))
def test_any_other_order_or_selection_is_found(order: list[int], keep: int) -> None:
    records = chain()
    chosen = [records[i] for i in order[:keep]]
    found = verify(lines(chosen))
    assert (found.problem is None) == (keep > 0 and order[:keep] == list(range(keep)))
