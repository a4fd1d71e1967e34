"""Lets these tests import the worlds that several of them share, and starts none."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
