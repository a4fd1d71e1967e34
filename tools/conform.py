"""Every property of every action on the test cluster: `python -m tools.conform --report FOLDER`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tiphys.service.conform import kit
from tiphys.service.conform.worlds import closing

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Prove, print, write; 1 if something was not proven."""
    parser = argparse.ArgumentParser(prog="python -m tools.conform", description=__doc__)
    parser.add_argument("action", nargs="?", help="one action; without it, all")
    parser.add_argument("--report", type=Path, help="a folder for the report")
    told = parser.parse_args()
    sys.path.append(str(ROOT / "tests" / "conformance"))
    from real_world import RealWorld  # type: ignore[import-not-found]  # where its tools are

    def heard(found: kit.Finding) -> None:
        mark = "proven" if found.proven else f"NOT PROVEN: {found.why}"
        sys.stdout.write(f"{found.action}: {found.property}: {mark} ({found.seconds:.1f} s)\n")
        sys.stdout.flush()

    with (
        tempfile.TemporaryDirectory(prefix="tiphys-conform-") as folder,
        closing(RealWorld(Path(folder))) as world,
    ):
        made = kit.prove(world, kit.chosen(told.action), kit.name_of(world), heard)
    if told.report:
        kit.write(made, told.report)
    return 0 if made.proven else 1


if __name__ == "__main__":
    sys.exit(main())
