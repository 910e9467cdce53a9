"""Ray's own command, with time to start: `python -m raygrid.engine.ray.start start --head ...`."""

from __future__ import annotations

import sys

from ray.scripts.scripts import main as ray_command

from raygrid.engine.ray.private import patient_start

if __name__ == "__main__":
    with patient_start():
        sys.exit(ray_command())
