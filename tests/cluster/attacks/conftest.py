"""The fort stands once for all attackers.

The modules beside this file are found by their plain names.
"""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import siege
from fort import Fort, standing

from tools.cluster.target import Target


@pytest.fixture(scope="session")
def fort(cluster: Target) -> Generator[Fort]:
    """A Tiphys of its own, with nothing running in it."""
    with standing(cluster) as made:
        yield made


@pytest.fixture(scope="session")
def day(fort: Fort) -> siege.Day:
    """Everything asked once; most of it is waiting for answers."""
    return siege.day(fort)
