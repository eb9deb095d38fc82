"""`tinyyolo table`: runs as rows, seeds as mean and deviation, and what is not known said in a line."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from tests.engine.test_engine import trained
from tests.support.checkpoints import unfinished
from tests.test_cli import call
from tinyyolo import __version__
from tinyyolo import io as files
from tinyyolo.config import load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.engine import checkpoint
from tinyyolo.engine.history.cost import cost
from tinyyolo.engine.history.provenance import commit
from tinyyolo.engine.history.records import read_run
from tinyyolo.evaluation.summary.rows import BEHIND


@pytest.fixture(scope="module")
def run(tiny_set, tmp_path_factory):
    """A training of two epochs, the better of which it chose on the split that it reports."""
    model = trained(tiny_set, epochs=2, project=str(tmp_path_factory.mktemp("runs")))
    return Path(model.trainer.save_dir)


@pytest.fixture
def twin(run, tmp_path, monkeypatch):
    """`twin(name, metrics, key=value...)`: the run again, with other figures and arguments."""
    monkeypatch.setattr(files, "TOLD", set())

    def made(name, metrics=None, **args):
        folder = tmp_path / name
        shutil.copytree(run, folder)
        for file, read, write, more in (
            ("args.yaml", yaml.safe_load, yaml.safe_dump, args),
            ("metrics.json", json.loads, json.dumps, metrics or {}),
        ):
            (folder / file).write_text(write(read((folder / file).read_text()) | more))
        return name

    return made


def rows_of(text):
    """Cells of a Markdown table by the row's name."""
    lines = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in text.splitlines() if "|" in line]
    header = ["row", *lines[0][-len(lines[2]) + 1 :]]
    return {cells[0]: dict(zip(header, cells, strict=True)) for cells in lines[2:]}


def test_runs_that_differ_in_the_seed_are_one_row(twin, run, tiny_set, capsys):
    per_class = {"dark": {"AP": 0.1}, "bright": {"AP": -1}}
    twin("a", {"AP": 0.2, "AP50": 0.5, "AP_vt": -1, "per_class": per_class}, seed=0)
    twin("b", {"AP": 0.4, "AP50": 0.5, "AP_vt": 0.1, "per_class": per_class}, seed=5, project="b", workers=2)
    twin("c", {"AP": 0.3}, seed=0, lr0=0.5)
    (Path("a/results.csv")).write_text("epoch,time\n1,1800\n2,3600\n")
    (Path("b/results.csv")).write_text("epoch,time\n1,3600\n2,7200\n3,3600\n")  # resumed: its clock began anew
    code, out, err = call("table", "a", "b", "c", capsys=capsys)
    assert code == 0 and not err
    row, other = rows_of(out).values()
    assert row["seeds"] == "0, 5" and row["AP"] == "30.0 ± 14.1" and row["AP50"] == "50.0 ± 0.0"
    assert row["AP_vt"] == "-" and row["hours"] == "2.00 ± 1.41"
    content = checkpoint.load(run / "weights/best.pt")
    count = sum(p.numel() for p in checkpoint.to_model(content).parameters())
    assert row["M parameters"] == f"{count / 1e6:.2f}"
    assert float(row["GFLOPs"]) == round(checkpoint.to_model(content).gflops(96), 1)
    assert row["commit"] == content["commit"] == (commit() or None) or f"v{__version__}"
    assert (other["AP"], other["seeds"]) == ("30.0", "0")
    assert "tinyyolo-n (a) <sup>a</sup>" in out and "tinyyolo-n (c) <sup>a</sup>" in out
    assert "<sup>a</sup> its weights are the best of 2 epochs on the very images that its figures are of" in out
    _, out, _ = call("table", "a", "b", "per_class=true", capsys=capsys)
    assert "|  | seeds | dark | bright | AP50 |" in out and "| 0, 5 | 10.0 ± 0.0 | - | 50.0 ± 0.0 |" in out


def test_what_was_not_chosen_has_no_note(twin, capsys):
    twin("a", {"best_of_epochs_on_this_split": 0})
    assert "<sup>" not in call("table", "a", capsys=capsys)[1]


def test_what_is_not_known_is_a_dash_and_a_line(twin, capsys):
    for name in ("bare", "validation", "old"):
        twin(name, {"AP": 0.25})
    shutil.rmtree("bare/weights")
    shutil.rmtree("validation/weights")
    for file in ("args.yaml", "results.csv"):
        Path("validation", file).unlink()
    best = Path("old/weights/best.pt")
    checkpoint.save(best, {k: v for k, v in checkpoint.load(best).items() if k != "commit"})
    code, out, err = call("table", "bare", "validation", "old", capsys=capsys)
    rows = rows_of(out)
    assert code == 0 and len(rows) == 3, "without its weights a run is a row by itself"
    assert [rows["validation <sup>a</sup>"][name] for name in ("data", "seeds", *BEHIND)] == ["-"] * 6
    bare, old = (row for name, row in rows.items() if "validation" not in name)
    assert (bare["seeds"], bare["M parameters"], old["commit"]) == ("0", "-", f"v{__version__}")
    assert err.splitlines() == [
        "bare: not known are parameters, GFLOPs and commit (no weights)",
        "validation: not known are seed and data (no args.yaml); hours (no results.csv);"
        " parameters, GFLOPs and commit (no weights)",
    ]


def test_an_unfinished_run_and_a_seed_given_twice_are_told(twin, capsys):
    twin("a")
    twin("b")
    last = Path("b/weights/last.pt")
    checkpoint.save(last, unfinished(checkpoint.load(last)))
    _, out, err = call("table", "a", "b", capsys=capsys)
    assert err.splitlines() == [
        "b: not finished: its figures are those of its last validation so far",
        "tinyyolo-n: 2 runs of seed 0: their deviation is not that of seeds",
    ]
    assert len(rows_of(out)) == 1


def test_names_make_rows_and_tell_of_other_settings(twin, capsys):
    twin("a", {"AP": 0.1}, seed=0)
    twin("b", {"AP": 0.3}, seed=1, lr0=0.5)
    _, out, err = call("table", "a", "b", "names=[ours & 50%,ours & 50%]", "format=latex", capsys=capsys)
    assert not err and r"ours \& 50\%\textsuperscript{a}\textsuperscript{b} & 0, 1 & $20.0 \pm 14.1$" in out
    assert "its seeds ran with different settings" in out


def test_csv_has_numbers_and_a_file_is_kept(twin, capsys):
    twin("a", {"AP": 0.2}, seed=0)
    twin("b", {"AP": 0.4}, seed=1)
    code, out, err = call("table", "a", "b", "out=t/all.csv", capsys=capsys)
    assert code == 0 and err == "Saved t/all.csv\n" and Path("t/all.csv").read_text() == out
    (row,) = csv.DictReader(io.StringIO(out))
    assert (float(row["AP"]), float(row["AP std"]), row["seeds"]) == (30.0, 14.1421, "0, 1")
    assert row["note"].startswith("its weights are the best of 2 epochs")
    code, _, err = call("table", "a", "out=t/all.csv", capsys=capsys)
    assert code == 2 and "t/all.csv: exists; overwrite=true replaces it" in err
    assert call("table", "a", "out=t/all.csv", "overwrite=true", capsys=capsys)[0] == 0
    assert len(Path("t/all.csv").read_text().splitlines()) == 2


def test_lines_of_an_ablation_are_rows_too(twin, tmp_path, capsys):
    twin("a", {"AP": 0.2})
    record = {"row": "x", "label": "the x", "command": "tinyyolo train val=false", "epochs": 3, "data": "sets"}
    record |= {"metrics": {"AP": 0.5, "AR100": 0.1}, "seconds": 360, "params": 2_000_000, "commit": "abc", "seed": 4}
    chosen = {**record, "seed": 5, "command": "tinyyolo train"}
    Path("r.jsonl").write_text(json.dumps(record) + "\n" + json.dumps({**chosen, "row": "y", "label": "the y"}) + "\n{")
    code, out, err = call("table", "r.jsonl", "a", capsys=capsys)
    rows = rows_of(out)
    assert code == 0 and err == "r.jsonl: not known are GFLOPs (no such key, before they were counted)\n"
    cells = [rows["the x"][key] for key in ("data", "AP", "AR100", *BEHIND)]
    assert cells == ["sets", "50.0", "10.0", "2.00", "-", "0.10", "abc"]
    assert "the y <sup>a</sup>" in rows and "<sup>a</sup> its weights are the best of 3 epochs" in out
    assert [name for name in rows if name.startswith("tinyyolo-n")]


MISTAKES = [
    (["table"], "table: no runs are named"),
    (["table", "none"], "none: no run: it has no metrics.json"),
    (["table", "a", "format=tex"], "format=tex: did you mean 'latex'? Choices: csv, latex, markdown"),
    (["table", "a", "out=a.txt"], "out=a.txt: format= does not say"),
    (["table", "a", "names=[x,y]"], "2 names for 1 runs"),
    (["table", "damaged"], "metrics.json:1: not valid JSON"),
    (["table", "other"], "metrics.json: no metrics: it has no AP"),
    (["table", "empty.jsonl"], "empty.jsonl: no run is recorded in it"),
    (["table", "other.jsonl"], "other.jsonl:1: no record of an ablation"),
    (["table", "torn.jsonl"], "torn.jsonl:1: not JSON"),
    (["table", "none.jsonl"], "none.jsonl: no such"),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_mistakes_are_one_line(tmp_path, words, says, capsys):
    for name, text in {"a": '{"AP": 0.1}', "damaged": '{"AP": ', "other": "[]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(text)
    for name, text in {"empty": "", "other": "{}\n", "torn": "{\n{}\n"}.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    code, out, err = call(*words, capsys=capsys)
    assert code == 2 and says in err and err.count("\n") == 1 and not out


def test_a_run_without_args_takes_those_of_its_weights(twin):
    twin("a", seed=3)
    Path("a/args.yaml").unlink()
    assert read_run(Path("a"))["seed"] == 0, "the checkpoint's"


@pytest.mark.parametrize("name", ["tinyyolo-n.yaml", "cascade-rcnn-r18-nwdrka.yaml"])
def test_operations_are_those_of_a_whole_look(name):
    """Of an image in which the RPN finds as many regions as it may."""
    torch.manual_seed(0)
    model = build_model(load_model_yaml(name, {} if "yolo" in name else {"rpn.proposals": 20}), 3).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as whole:
        model(torch.rand(1, 3, 128, 128))
    assert model.gflops(128) == pytest.approx(whole.get_total_flops() / 1e9, rel=1e-9)
    assert cost(model, [128, 128]) == {"params": model.info()[1], "gflops": round(model.info(imgsz=128)[3], 3)}


@pytest.mark.parametrize(
    "name", ["detectors-slim-nwdrka", "reppoints-r50", "grid-rcnn-r18-nwdrka", "tridentnet-r18-nwdrka"]
)
def test_operations_of_deformable_and_branched_ones(name):
    """Height and width count as they are: of half an image, half the operations but those of the second stage."""
    model = build_model(load_model_yaml(f"{name}.yaml"), 3).eval()
    whole, half = model.gflops(256), model.gflops((128, 256))
    assert 0 < whole / 2 <= half < whole


def test_the_commit_is_that_of_the_code_alone(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    (tmp_path / "tinyyolo").mkdir()
    (tmp_path / "tinyyolo/__init__.py").write_text("")
    git("init", "-q")
    assert commit(tmp_path) == "", "a package that another project's repository does not hold"
    git("add", ".")
    git("commit", "-q", "-m", "one")
    clean = commit(tmp_path)
    assert len(clean) == 12 and int(clean, 16)
    (tmp_path / "notes.txt").write_text("beside the code")
    assert commit(tmp_path) == clean
    (tmp_path / "tinyyolo/__init__.py").write_text("# changed")
    assert commit(tmp_path) == f"{clean}+"
    assert commit(tmp_path / "gone") == ""
