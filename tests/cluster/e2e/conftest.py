"""End to end on the real cluster: the modules beside this file are found by their plain names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
