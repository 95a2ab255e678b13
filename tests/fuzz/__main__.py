"""``python -m tests.fuzz TARGET [--minutes 30] [--executions 2000000] [--findings DIR]``: fuzz one target.

Ends after the minutes or the executions, whichever comes first, or at the first finding: an exception that is not a
UserError, an execution of more than 10 s, or memory above 2 GB. The input is kept in DIR; ``--input FILE`` repeats it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["geovlm_ray"]):
    from tests.fuzz.targets import TARGETS

SECONDS_PER_EXECUTION = 10
MEMORY_MB = 2_048


def main() -> None:
    """Fuzz until the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--executions", type=int, default=2_000_000)
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    parser.add_argument("--input", type=Path, help="run one kept input")
    options = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="geovlm-fuzz-") as name:
        folder = Path(name)
        target = TARGETS[options.target](folder / "work")
        if options.input:
            target.run(options.input.read_bytes())
            return
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(target.seeds()):
            (corpus / str(number)).write_bytes(seed)
        options.findings.mkdir(parents=True, exist_ok=True)
        atheris.Setup(
            [
                sys.argv[0],
                f"-max_total_time={options.minutes * 60:.0f}",
                f"-runs={options.executions}",
                f"-timeout={SECONDS_PER_EXECUTION}",
                f"-rss_limit_mb={MEMORY_MB}",
                f"-artifact_prefix={options.findings}/{options.target}-",
                "-print_final_stats=1",
                "-len_control=0",
                "-max_len=20000",
                str(corpus),
            ],
            target.run,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
