"""What a test run leaves in the temporary folder: nothing."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGETS = ("tests/test_sizes.py", "tinyyolo/datasets/formats/coco.py")  # the second has doctests that make folders


def test_a_run_leaves_nothing_in_the_temporary_folder(tmp_path):
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TARGETS]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    env.pop("TINYYOLO_CACHE", None)
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr
    assert not [path.name for path in tmp_path.iterdir()]
