"""The people file: read whole or refused with sentences; tokens by their hash, never guessable."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tiphys.policies.people import Person, PersonRole, RoleGrant, same_person
from tiphys.service.errors import BadInputError
from tiphys.service.people import People
from tiphys.service.people_file import create_token, parse, token_hash

TOKEN, HASH = create_token()
GOOD = f"""\
format: tiphys/people/v1
people:
  - name: alice
    teams: [sre]
    roles:
      - role: approver
        namespaces: [shop, "team-*"]
      - role: viewer
        namespaces: ["*"]
    identities:
      slack: U024BE7LH
      email: [Alice@example.org, a@example.org]
    tokens:
      - sha256: {HASH}
        note: laptop
  - name: bob
    roles: [{{role: operator, namespaces: ["*"]}}]
"""


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "people.yaml"
    path.write_text(GOOD)
    return path


def test_people_are_found_by_what_proves_them(file: Path) -> None:
    people = People(file)
    alice = people.of_token(TOKEN)
    assert alice is not None
    assert (alice.name, alice.teams) == ("alice", ("sre",))
    assert people.of_identity("slack", "U024BE7LH") == alice
    assert people.of_identity("email", "alice@EXAMPLE.org") == alice
    assert alice.may(PersonRole.APPROVER, "team-a")
    assert not alice.may(PersonRole.APPROVER, "other")
    assert alice.may_everywhere(PersonRole.VIEWER)
    for channel, name in (("slack", "u024be7lh"), ("email", "U024BE7LH"), ("slack", "alice")):
        assert people.of_identity(channel, name) is None


@pytest.mark.parametrize(
    "given",
    ["", HASH, TOKEN[:-1], TOKEN + "x", "hunter2", f" {TOKEN}"],
    ids=["nothing", "its hash", "cut short", "longer", "a guess", "with a space"],
)
def test_nothing_but_the_token_is_the_token(file: Path, given: str) -> None:
    assert People(file).of_token(given) is None


def test_a_password_that_somebody_thought_up_is_no_token_even_if_its_hash_is_there() -> None:
    assert token_hash("correct horse battery staple") is None
    assert create_token()[0] != create_token()[0]
    assert len(TOKEN) >= len("tiphys-person-") + 43


BAD: dict[str, tuple[Callable[[str], str], str]] = {
    "no file": (lambda _: "", "people.yaml:1: the file"),
    "format": (lambda t: t.replace("/v1", "/v2"), "people.yaml:1: format: expected tiphys/people"),
    "role": (lambda t: t.replace("approver", "root"), "people.yaml:6: people[0].roles[0].role"),
    "key": (lambda t: t.replace("teams:", "team:"), "people.yaml:4: people[0].team: there is no"),
    "namespaces": (lambda t: t.replace("[shop, ", '["Shop!", '), "people.yaml:7: people[0]"),
    "nobody's namespace": (
        lambda t: t.replace('operator, namespaces: ["*"]', "operator"),
        "roles[0].namespaces: is missing",
    ),
    "the token itself": (lambda t: t.replace(HASH, TOKEN), "people token` prints, never the token"),
    "two names": (lambda t: t.replace("bob", '"ALICE "'), "people.yaml:16: people[1].name"),
    "the same name": (lambda t: t.replace("bob", "Alice"), "Alice and alice are the same name"),
    "our own name": (lambda t: t.replace("bob", "API-Token"), "the installation's own token"),
    "one token for two": (
        lambda t: t + f"    tokens: [{{sha256: {HASH}}}]\n",
        "this token is alice's already",
    ),
    "one identity for two": (
        lambda t: t + "    identities: {email: A@EXAMPLE.org}\n",
        "email A@EXAMPLE.org is alice's already",
    ),
    "an anchor": (lambda t: t.replace("[sre]", "&a [sre]"), "people.yaml:4: anchors"),
    "a comma": (lambda t: t.replace("name: bob", 'name: "bob, carol"'), "people[1].name"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_with_file_line_and_key(fault: str) -> None:
    change, says = BAD[fault]
    with pytest.raises(BadInputError) as refused:
        parse(change(GOOD).encode(), "people.yaml")
    assert says in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_what_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="UTF-8"):
        parse(b"\xff\xfe", "people.yaml")
    with pytest.raises(BadInputError, match="No such file"):
        People(tmp_path / "absent.yaml")


def test_a_change_counts_within_seconds(file: Path) -> None:
    time = Time()
    people = People(file, time)
    before = os.stat(file)
    file.write_text(GOOD.replace("U024BE7LH", "U000000LH"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a mounted file may look
    assert people.of_identity("slack", "U024BE7LH")
    time.now = 2.1
    assert people.of_identity("slack", "U024BE7LH") is None
    assert people.of_identity("slack", "U000000LH")


@pytest.mark.parametrize("spoil", ["not yaml: [", None])
def test_while_the_file_is_bad_people_look_and_stop_and_do_nothing_else(
    file: Path, spoil: str | None
) -> None:
    """A revocation with a slip in it must not leave the revoked what they had."""
    time = Time()
    people = People(file, time)
    if spoil is None:
        file.unlink()
    else:
        file.write_text(spoil)
    time.now = 3
    alice = people.of_token(TOKEN)
    assert alice is not None
    assert alice.may(PersonRole.VIEWER, "shop")
    assert not alice.may(PersonRole.OPERATOR)
    assert people.may_stop(alice)
    with pytest.raises(BadInputError):
        people.check()
    file.write_text(GOOD.replace("name: bob", "name: carol"))
    time.now = 6
    again = people.of_token(TOKEN)
    assert again is not None
    assert again.may(PersonRole.APPROVER, "shop")
    people.check()


def test_who_could_not_stop_before_cannot_while_the_file_is_bad(file: Path) -> None:
    file.write_text(GOOD.replace("role: approver", "role: viewer"))
    time = Time()
    people = People(file, time)
    file.unlink()
    time.now = 3
    alice = people.of_token(TOKEN)
    assert alice is not None
    assert not people.may_stop(alice)


def test_without_a_file_nobody_is_known() -> None:
    people = People(None)
    assert not people.known
    assert people.of_token(TOKEN) is None
    assert people.of_identity("slack", "U024BE7LH") is None


def test_a_name_is_one_person_however_it_is_spelt() -> None:
    assert same_person("Alice  Doe", "alice doe ")
    assert same_person("\uff41lice", "alice")
    assert not same_person("alice", "bob")


def test_lowering_gives_nobody_more() -> None:
    grants = (
        RoleGrant(role=PersonRole.ADMIN, namespaces=("shop",)),
        RoleGrant(role=PersonRole.VIEWER),
    )
    lowered = Person(name="a", grants=grants).at_most(PersonRole.OPERATOR)
    assert [grant.role for grant in lowered.grants] == [PersonRole.OPERATOR, PersonRole.VIEWER]
    assert lowered.grants[0].namespaces == ("shop",)
