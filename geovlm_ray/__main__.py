"""Entry point of ``geovlm-ray`` and of ``python -m geovlm_ray``."""
# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import sys

from geovlm_ray.core.interrupts import end_at_once


def main() -> int:
    """Run the command of this process; a signal ends it with one line also while modules are imported."""
    end_at_once()
    from geovlm_ray.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
