"""The world's tests of the service's own half, on PostgreSQL, each stage as its role's user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(1800)
def test_the_stages_hold_on_postgres_as_they_do_on_sqlite(superuser: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "postgres", "-n", "2", "tests/world"],
        cwd=ROOT,
        env={**os.environ, "TIPHYS_TEST_POSTGRES": superuser},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
