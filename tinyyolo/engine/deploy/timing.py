"""Time and memory of one file in a process of its own: `python -m tinyyolo.engine.deploy.timing FILE IMGSZ PICTURE`."""

from __future__ import annotations

import statistics
import sys
import time

from tinyyolo.datasets.images import opened
from tinyyolo.engine.model import Model

try:
    import resource
except ImportError:  # Windows, which says nothing of memory here
    resource = None  # type: ignore[assignment]  # its type is the module's

WARM, RUNS = 3, 15
KILO = 1024
IN_BYTES = KILO if sys.platform == "darwin" else 1  # what the system counts memory in, kB or bytes


def timed(path: str, imgsz: int, picture: str) -> tuple[float, float]:
    """Median ms of a picture, from its pixels to its detections, warm, and the most memory in use, MB; 0: not known."""
    model, pixels = Model(path, trust=path.endswith(".torchscript")), opened(picture)
    seconds = []
    for _ in range(WARM + RUNS):
        start = time.perf_counter()
        model.predict(pixels, imgsz=imgsz, tile="off", verbose=False)
        seconds.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / IN_BYTES / KILO if resource else 0.0
    return 1e3 * statistics.median(seconds[WARM:]), memory


if __name__ == "__main__":
    print(*timed(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
