"""Command line of the study: `python -m research.canary_study`, `make canary-study`.

It writes a JSON file, a picture, and the table in the docs. Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hft_platform.config.canonical import atomic_write
from research.canary_study.lives import LIVES
from research.canary_study.results import (
    PAGE,
    PICTURE,
    RESULTS,
    markdown,
    picture,
    run,
    with_results,
)
from research.canary_study.sessions import POOL


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study, or only render what it found before."""
    parser = argparse.ArgumentParser(prog="canary_study", description=__doc__)
    parser.add_argument("--lives", type=int, default=LIVES)
    parser.add_argument("--pool", type=int, default=POOL)
    parser.add_argument("--render", action="store_true", help="run nothing, write page and picture")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    if not arguments.render:
        with tempfile.TemporaryDirectory(prefix="canary-study-") as folder:
            results = run(Path(folder), lives=arguments.lives, pool=arguments.pool)
        atomic_write(arguments.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    results = json.loads(arguments.out.read_bytes())
    if arguments.out == RESULTS:
        PAGE.write_text(with_results(PAGE.read_text(), results))
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        PICTURE.write_bytes(picture(results))
    sys.stdout.write(markdown(results) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
