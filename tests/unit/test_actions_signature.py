"""Only the launcher's key starts a run, and its file is nobody else's."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.workflow_templates.signature import (
    ForgedError,
    KeyUnusableError,
    load_key,
    load_or_create_key,
    public_hex,
    sign,
    verify,
)

DIGEST, LATER = "a" * 64, "2026-01-02T03:04:05Z"


def test_a_signature_counts_for_one_digest_one_time_and_one_key() -> None:
    key = Ed25519PrivateKey.generate()
    signature, public = sign(key, DIGEST, LATER), public_hex(key)
    verify(public, DIGEST, LATER, signature)
    other = public_hex(Ed25519PrivateKey.generate())
    for wrong in (
        (public, "b" * 64, LATER, signature),
        (public, DIGEST, "2027-01-02T03:04:05Z", signature),
        (other, DIGEST, LATER, signature),
        (public, DIGEST, LATER, "00" + signature[2:]),
        (public, DIGEST, LATER, "not hex"),
        (public, DIGEST, LATER, ""),
        ("", DIGEST, LATER, signature),
    ):
        with pytest.raises(ForgedError):
            verify(*wrong)


def test_the_key_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "launcher.pem"
    first = load_or_create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_hex(load_or_create_key(path)) == public_hex(first)
    path.chmod(0o640)
    with pytest.raises(KeyUnusableError, match="readable by others"):
        load_key(path)


@pytest.mark.parametrize("text", [b"", b"-----BEGIN PRIVATE KEY-----\nnonsense"])
def test_a_broken_key_file_is_said_to_be_one(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "launcher.pem"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(KeyUnusableError, match=r"launcher\.pem"):
        load_or_create_key(path)
