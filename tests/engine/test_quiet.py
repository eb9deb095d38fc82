"""No connection leaves the machine: train, validate and predict with every attempt counted."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tinyyolo.compat import quiet

SCRIPT = """
import socket, sys
attempts = []
def watch(event, args):
    if event == "socket.connect":
        address = args[1]
        host = address[0] if isinstance(address, tuple) else address
        if isinstance(address, tuple) and str(host) not in ("127.0.0.1", "::1", "localhost"):
            attempts.append(("connect", host))
    elif event == "socket.getaddrinfo" and args[0] not in (None, "localhost", "127.0.0.1", "::1"):
        attempts.append(("getaddrinfo", args[0]))
    elif event == "subprocess.Popen" and any("pip" in str(word) for word in (args[1] or ())):
        attempts.append(("pip", args[1]))
    elif event == "urllib.Request":
        attempts.append(("urllib", args[0]))
sys.addaudithook(watch)
FIRST
from tinyyolo.cli import main
data, image = sys.argv[1:3]
tiny = ["backbone.channels=[8,8,16,16]", "neck.channels=[16,16,16]", "head.hidden=[16,16,16]"]
assert main(["train", f"data={data}", "imgsz=96", "batch=2", "epochs=1", *tiny]) == 0
assert main(["val", "model=runs/train/weights/best.pt", f"data={data}", "imgsz=96"]) == 0
more = ["conf=0", "max_det=20", "show_labels=true"]
assert main(["predict", "model=runs/train/weights/best.pt", f"source={image}", *more]) == 0
print("ATTEMPTS", attempts)
"""


def run(tmp_path, tiny_set, first):
    """Run the script with a fresh home and none of the quietening variables."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "PYTEST"))}
    env |= {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "YOLO_CONFIG_DIR": str(tmp_path / "settings"),
    }
    image = tiny_set.parent / "images" / "val_0.png"
    command = [sys.executable, "-c", SCRIPT.replace("FIRST", first), str(tiny_set), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr, Path(tmp_path)


def test_no_connection_is_attempted(tmp_path, tiny_set):
    output, _ = run(tmp_path, tiny_set, "")
    assert "ATTEMPTS []" in output, output[-1500:]
    told = next(line for line in output.splitlines() if "all other keys are at their defaults" in line)
    assert " epochs=1 " in told and " batch=2 " in told and "paste=12" in told, "the model's recipe is told, too"
    assert "auto_augment" not in output, "and not the 120 others"
    assert "yolo settings" not in output, "of upstream's own command"


@pytest.mark.slow
def test_the_watch_sees_an_attempt(tmp_path, tiny_set):
    probe = "try:\n    socket.create_connection(('192.0.2.1', 9), timeout=0.1)\nexcept OSError:\n    print('refused')"
    output, _ = run(tmp_path, tiny_set, probe)
    assert "192.0.2.1" in output


def test_torchscript_goes_without_advice_to_use_something_else(tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        quiet()
        torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)).save(str(tmp_path / "a.pt"))
        torch.jit.save(torch.jit.load(str(tmp_path / "a.pt")), str(tmp_path / "b.pt"))
    assert not said, [str(one.message) for one in said]
