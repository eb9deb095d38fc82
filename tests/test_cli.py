"""The command: what it prints, how it exits, and one clear line for every mistake."""

import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.engine.test_engine import RUN, TINY
from tinyyolo import __version__
from tinyyolo.cli import COMMANDS, leaves, main, resolve
from tinyyolo.config import load_model_yaml, yaml_names


def call(*words, capsys=None):
    """Exit code, stdout and stderr of a command line in this process."""
    code = main([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_help_is_fast_and_light():
    script = "import sys; from tinyyolo.cli import main; main(['--help']); print('torch' in sys.modules)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    assert done.stdout.strip().endswith("False"), "torch was imported"
    assert all(word in done.stdout for word in COMMANDS)
    assert seconds < 5, "a second on an idle machine, with room for a busy one"


def test_version(capsys):
    assert call("--version", capsys=capsys) == (0, f"{__version__}\n", "")


ALL = dict(leaves(COMMANDS))


@pytest.mark.parametrize("words", sorted(ALL))
def test_every_command_has_one_help_asked_for_in_any_way(words, capsys):
    assert resolve(ALL[words]).__doc__
    asked = [call("help", *words.split(), capsys=capsys)]
    asked += [call(*words.split(), flag, capsys=capsys) for flag in ("--help", "-h")]
    asked += [call("--help", *words.split(), capsys=capsys)]
    first, *last = words.split()
    asked += [call(first, "help", *last, capsys=capsys)]
    assert len(set(asked)) == 1
    code, out, err = asked[0]
    assert code == 0 and not err and out.startswith(f"tinyyolo {words}")


def test_a_word_with_commands_behind_it_lists_them(capsys):
    for words in (["help", "data"], ["data", "--help"], ["data", "help"]):
        code, out, _ = call(*words, capsys=capsys)
        assert code == 0 and [line.split()[1] for line in out.splitlines()] == [
            "check",
            "stats",
            "convert",
            "split",
            "build-aitod",
        ]


def test_help_of_a_key(capsys):
    code, out, err = call("help", "tile", capsys=capsys)
    assert code == 0 and not err and out.startswith("tile=auto: ") and "train, val, predict" in out
    assert call("help", "dfl", capsys=capsys)[1].startswith("dfl: not taken; ")
    code, _, err = call("help", "epoch", capsys=capsys)
    assert code == 2 and "did you mean 'epochs'" in err and err.count("\n") == 1


def test_models_lists_every_yaml(capsys):
    code, out, _ = call("models", capsys=capsys)
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert code == 0 and sorted(lines) == sorted(name.removesuffix(".yaml") for name in yaml_names("cfg/models"))
    assert lines["faster-rcnn-r50-nwdrka"] == ["41.38", "21.4", "53.2", "12.5", "7.7", "20.7", "26.8", "35.2"]
    assert lines["tinyyolo-n"][1:] == ["-"] * 7
    for name, figures in lines.items():
        published = load_model_yaml(f"{name}.yaml").get("published") or {}
        assert figures[1] == (f"{published['AP']:.1f}" if published.get("data") == "AI-TOD-v2" else "-")
    assert lines["faster-rcnn-r50-rfla"] == ["41.38", "22.6", "54.8", "14.5", "8.6", "21.7", "28.8", "35.5"]
    assert lines["retinanet-r50-rfla"][1:] == ["-"] * 7, "published on AI-TOD"


MISTAKES = [
    (["trian"], "did you mean 'train'"),
    (["train", "epoch=3"], "did you mean 'epochs'"),
    (["train", "epochs=-1"], "epochs=-1"),
    (["train", "epochs=zwei"], "epochs=zwei"),
    (["train", "imgsz=0"], "imgsz=0"),
    (["train", "batch=abc"], "batch=abc"),
    (["train", "epochs=1", "epochs=2"], "given twice"),
    (["train", "=3"], "no key"),
    (["train", "model=tinyyolo-q.yaml"], "tinyyolo-n.yaml"),
    (["train", "data=ai-tod-v2"], "AI-TOD-v2.yaml"),
    (["train", "data=nowhere/my.yaml"], "nowhere/my.yaml"),
    (["train", "head.assigner.topq=2"], "did you mean 'topk'"),
    (["train", "optimizer=SDG", "lr0=abc"], "lr0"),
    (["tune", "model=tinyyolo-n.yaml"], "tune: not offered: "),
    (["train", "optimizer=MuSDG"], "optimizer=MuSDG: unknown; did you mean 'MuSGD'"),
    (["train", "paste=many"], "paste=many: expected a whole number of at least 0"),
    (["train", "quantize=8"], "quantize"),
    (["train", "head.gains.box=abc"], "head.gains={'box': 'abc'"),
    (["train", "head.hidden=3"], "head.hidden=3: expected"),
    (["predict"], "source= is missing"),
    (["predict", "surce=x.png"], "surce: unknown argument; did you mean 'source'?"),
    (["val"], "model="),
    (["predict", "model=missing.pt", "source=x.png"], "missing.pt: no such checkpoint"),
    (["info", "modle=tinyyolo-n.yaml"], "modle"),
    (["help", "trian"], "did you mean 'train'"),
    (["data"], "data: expected a word; Choices: build-aitod, check, convert, split, stats"),
    (["data", "chek"], "did you mean 'check'"),
    (["data", "check"], "data check: data= is missing: tinyyolo data check DATA"),
    (["data", "check", "a.yaml", "b.yaml"], "data check: expected key=value, found 'b.yaml'"),
    (["data", "check", "a.yaml", "data=b.yaml"], "data check: expected key=value, found 'a.yaml'"),
    (["data", "stats", "a.yaml", "imgsize=3"], "data stats: unknown key 'imgsize'; did you mean 'imgsz'"),
    (["data", "check", "none.yaml"], "none.yaml: no such file"),
    (["data", "check", "AI-TOD-v2"], "the data are not in"),
    (["data", "build-aitod", "xview=a"], "build-aitod: give aitod=FOLDER"),
    (["models", "tinyyolo"], "models: expected key=value"),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_mistakes_exit_2_with_one_line(words, says, capsys):
    code, out, err = call(*words, capsys=capsys)
    assert code == 2 and says in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in out + err
    assert not Path("runs").exists(), "nothing was begun"


class Evil:
    def __reduce__(self):
        return (open, ("executed", "w"))


def broken_files(folder, good):
    """Files that are no checkpoints of ours, and what is said of each."""
    whole = Path(good).read_bytes()
    (folder / "text.pt").write_text("hello")
    (folder / "empty.pt").write_bytes(b"")
    (folder / "half.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "pickle.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"model": Evil()}, folder / "torch_pickle.pt")
    torch.save({"some": torch.zeros(1)}, folder / "other.pt")
    torch.save({"state_dict": {}}, folder / "authors.pt")
    newer = torch.load(good, weights_only=True)
    torch.save({**newer, "format": 99}, folder / "newer.pt")
    other = {k: v for k, v in newer["model"].items() if "backbone" not in k}
    torch.save({**newer, "model": other}, folder / "misfit.pt")
    return sorted(folder.glob("*.pt"))


@pytest.fixture(scope="module")
def checkpoint_path(tiny_set, tmp_path_factory):
    from tinyyolo import Model

    model = Model("tinyyolo-n.yaml", overrides=TINY)
    model.train(data=tiny_set, **RUN, project=str(tmp_path_factory.mktemp("cli-runs")))
    return model.ckpt_path


def test_no_broken_checkpoint_gets_through(checkpoint_path, tmp_path, capsys):
    (tmp_path / "files").mkdir()
    files = broken_files(tmp_path / "files", checkpoint_path)
    assert len(files) == 9
    for file in files:
        code, _, err = call("predict", f"model={file}", f"source={tmp_path}", capsys=capsys)
        assert code == 2 and file.name in err and len(err.strip().splitlines()) == 1, (file, err)
    assert not list(tmp_path.rglob("executed")), "a pickle was executed"


def test_predict_draws_and_writes(checkpoint_path, tiny_set, tmp_path, capsys):
    source = tiny_set.parent / "images" / "val_0.png"
    code, _, err = call(
        "predict",
        f"model={checkpoint_path}",
        f"source={source}",
        "conf=0",
        "max_det=20",
        "save_txt=true",
        capsys=capsys,
    )
    assert code == 0, err
    folder = tmp_path / "runs" / "predict"
    assert (folder / "val_0.jpg").stat().st_size > 0
    rows = (folder / "labels" / "val_0.txt").read_text().splitlines()
    assert rows and all(re.fullmatch(r"\d+( [\d.e-]+){4}", row) for row in rows)


@pytest.mark.parametrize(("source", "says"), [("nothing.png", "no such file"), ("empty", "empty")])
def test_bad_sources(checkpoint_path, source, says, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code, _, err = call("predict", f"model={checkpoint_path}", f"source={source}", capsys=capsys)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1


def test_val_writes_its_tables(checkpoint_path, tiny_set, tmp_path, capsys):
    code, _, err = call("val", f"model={checkpoint_path}", f"data={tiny_set}", "imgsz=96", "plots=false", capsys=capsys)
    assert code == 0, err
    assert (tmp_path / "runs" / "val" / "metrics.json").exists()
    assert (tmp_path / "runs" / "val" / "predictions.json").exists()


def test_val_names_the_splits(checkpoint_path, tiny_set, capsys):
    code, _, err = call("val", f"model={checkpoint_path}", f"data={tiny_set}", "split=test", capsys=capsys)
    assert code == 2 and "train" in err and "val" in err


def test_info_prints_the_size(capsys, caplog):
    code, *_ = call("info", "model=tinyyolo-n.yaml", "imgsz=64", capsys=capsys)
    assert code == 0
