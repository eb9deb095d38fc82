"""Where a command runs: a locale without letters, no home, no asserts; a terminal shows what it can."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.sets import write_set

WHERE = {
    "ASCII locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "no home": {"HOME": "FILE", "YOLO_CONFIG_DIR": None, "MPLCONFIGDIR": None},
    "without asserts": {"PYTHONOPTIMIZE": "1"},
}
CODE = """
import sys
from tinyyolo.cli import main
folder = sys.argv[1]
data = f"{folder}/data.yaml"
done = [main(["data", "stats", data]), main(["data", "convert", data, "to=yolo", f"out={folder}/yolo"])]
train = ["train", f"data={data}", "model=tinyyolo-n.yaml", "imgsz=32", "epochs=1", "batch=8", "workers=0"]
done.append(main([*train, "plots=false", "val=false"]))
predict = ["predict", "model=runs/train/weights/best.pt", f"source={folder}/images/val_0.png", "conf=0", "max_det=4"]
done.append(main([*predict, "save_crop=true", "show_labels=true", "imgsz=32"]))
sys.exit(max(done))
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
def test_commands_do_the_same_everywhere(tmp_path, where):
    folder = tmp_path / "a b %20#"
    data = write_set(folder, counts={"train": 2, "val": 1})
    for split in ("train", "val"):
        path = folder / f"{split}.json"
        content = json.loads(path.read_text())
        for category, name in zip(content["categories"], ("小船", "b<é>"), strict=True):
            category["name"] = name
        path.write_text(json.dumps(content))
    data.write_text(data.read_text().replace(str(folder), "."))
    (tmp_path / "file").write_text("")
    changes = {key: str(tmp_path / "file") if value == "FILE" else value for key, value in WHERE[where].items()}
    env = {key: value for key, value in {**os.environ, **changes}.items() if value is not None}
    given = {"cwd": tmp_path, "env": env, "capture_output": True}
    done = subprocess.run([sys.executable, "-c", CODE, str(folder)], **given)
    said = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == 0 and "Traceback" not in said and "Logging error" not in said, said[-2000:]
    assert ("\\u5c0f\\u8239" if where == "ASCII locale" else "小船") in said
    crops = tmp_path / "runs" / "predict" / "crops"
    assert len(list(crops.rglob("*.jpg"))) == 4 and len(list((folder / "yolo" / "labels").rglob("*.txt"))) == 3
