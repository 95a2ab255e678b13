"""``python -m geovlm_ray``, the same as the command ``geovlm-ray``."""

import sys

from geovlm_ray.cli import main

sys.exit(main())
