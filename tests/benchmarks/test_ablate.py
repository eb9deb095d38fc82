"""Bookkeeping of benchmarks/ablate.py: what runs, what is recorded, what the tables say. The training is replaced."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from benchmarks import ablate, peers
from tests.support.checkpoints import unfinished
from tinyyolo.assigners import ASSIGNERS
from tinyyolo.config import build, load_model_yaml
from tinyyolo.datasets.spec import load
from tinyyolo.engine import keys

SPECS = sorted((Path(ablate.__file__).parent / "specs").glob("*.yaml"))
SPEC = {
    "title": "Three rows",
    "train": {"model": "tinyyolo-n.yaml", "epochs": 1, "imgsz": 96, "batch": 2, "plots": False},
    "seeds": [0, 1],
    "rows": {
        "default": {"label": "as it is", "published": {"AI-TOD-v2": {"AP": 21.4}}},
        "shape": {"set": {"head.assigner": {"type": "shape", "ratio": 4.0}, "lr0": 0.01}},
        "stock": {"peer": "yolov8n-p2.yaml"},
    },
}
HOLD = "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True)"
METRICS = {"AP": 0.2, "AP50": 0.5, "AP_vt": -1, "AR1500": 0.3, "lrp": None, "per_class": {"dark": {"AP": 0.2}}}


class Trainings:
    """Stands for subprocess.run: keeps the words of each training and leaves the files of a run behind."""

    def __init__(self):
        self.words, self.fail, self.rest = [], (), subprocess.run

    def __call__(self, words, **options):
        if words[0] not in (sys.executable, "taskset"):  # git; matplotlib looking for fonts
            return self.rest(words, **options)
        self.words.append(words)
        pairs = dict(word.split("=", 1) for word in words if "=" in word)
        if "resume" in pairs:
            folder = Path(pairs["resume"]).parent.parent
        else:
            folder = Path(pairs["project"]) / pairs["name"]
        if folder.name in self.fail:
            print("the cause", file=options["stdout"])
            return SimpleNamespace(returncode=1)
        folder.mkdir(parents=True, exist_ok=True)
        metrics = {**METRICS, "AP": 0.2 + 0.1 * int(folder.name[-1])}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "peer.json").write_text('{"params": 2926824}')
        return SimpleNamespace(returncode=0)


@pytest.fixture
def bench(tmp_path, tiny_set, monkeypatch):
    """A spec, the fake trainings, and `go(*words)`, which runs ablate.py on them."""
    trainings = Trainings()
    monkeypatch.setattr(ablate.subprocess, "run", trainings)
    read = ablate.figures
    monkeypatch.setattr(ablate, "figures", lambda folder, peer: read(folder, True))  # no checkpoint there
    spec = tmp_path / "three.yaml"
    spec.write_text(yaml.safe_dump(SPEC, sort_keys=False))
    places = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--data", str(tiny_set)]

    def go(*words):
        return ablate.main([str(spec), *places, *words])

    def records():
        return [json.loads(line) for line in (tmp_path / "out/three.jsonl").read_text().splitlines()]

    return SimpleNamespace(
        go=go, spec=spec, trainings=trainings, records=records, out=tmp_path / "out", runs=tmp_path / "runs/three"
    )


def test_a_finished_run_never_runs_again(bench):
    assert bench.go("--seeds", "0") == 0
    assert [(r["row"], r["seed"]) for r in bench.records()] == [("default", 0), ("shape", 0), ("stock", 0)]
    assert bench.go("--seeds", "0") == 0
    assert len(bench.trainings.words) == len(bench.records()) == 3
    assert bench.go("--only", "shape") == 0  # seeds of the spec: 1 is left
    assert [(r["row"], r["seed"]) for r in bench.records()[3:]] == [("shape", 1)]
    assert len(bench.trainings.words) == 4


def test_two_workers_share_the_runs(bench):
    assert bench.go("--cpus", "0", "0") == 0
    assert sorted((r["row"], r["seed"]) for r in bench.records()) == sorted(
        (row, seed) for row in SPEC["rows"] for seed in (0, 1)
    )
    assert all(words[:3] == ["taskset", "-c", "0"] for words in bench.trainings.words)


def test_the_record_names_the_command_that_ran(bench, tiny_set):
    bench.go("--only", "shape", "stock", "--seeds", "1", "--on", "device=cpu")
    shape, stock = bench.trainings.words
    assert shape[1:4] == ["-m", "tinyyolo.cli", "train"]
    common = {"epochs=1", "imgsz=96", "batch=2", "device=cpu", "seed=1", f"data={tiny_set}"}
    assert common | {"head.assigner={type: shape, ratio: 4.0}", "lr0=0.01", "model=tinyyolo-n.yaml"} <= set(shape)
    assert stock[1] == peers.__file__ and common | {"model=yolov8n-p2.yaml"} <= set(stock)
    assert not any(word.startswith(("lr0", "plots", "exist_ok")) for word in stock)
    record, other = bench.records()
    assert record["command"].startswith("tinyyolo train model=tinyyolo-n.yaml epochs=1")
    assert "'head.assigner={type: shape, ratio: 4.0}'" in record["command"]
    assert "data=data.yaml" in record["command"] and str(tiny_set) not in record["command"]
    assert other["command"].startswith("python benchmarks/peers.py ")
    assert (record["imgsz"], record["epochs"], record["batch"]) == (96, 1, 2)
    assert record["images"] == {"train": [6, 26], "val": [4, 17]}
    assert record["metrics"] == {"AP": 0.3, "AP50": 0.5, "AP_vt": -1, "AR1500": 0.3}
    assert record["per_class"] == {"dark": {"AP": 0.2}}


def test_a_failed_run_is_told_and_left_for_the_next_time(bench, tiny_set, capsys):
    bench.trainings.fail = [ablate.Job("shape", 0, str(tiny_set)).name]
    assert bench.go("--seeds", "0") == 1
    assert "FAILED" in (said := capsys.readouterr().out) and "the cause" in said
    assert [r["row"] for r in bench.records()] == ["default", "stock"]
    bench.trainings.fail = ()
    assert bench.go("--seeds", "0") == 0
    assert [r["row"] for r in bench.records()] == ["default", "stock", "shape"]


def test_a_run_in_flight_is_left_alone_until_its_process_dies(bench, tiny_set, capsys):
    job = ablate.Job("default", 0, str(tiny_set))
    bench.runs.mkdir(parents=True)
    words = [sys.executable, "-c", HOLD + "; time.sleep(60)", str(bench.runs / f"{job.name}.lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert bench.go("--seeds", "0", "--only", "default", "stock") == 0
        assert "another process" in capsys.readouterr().out
        assert [r["row"] for r in bench.records()] == ["stock"]
        os.kill(holder.pid, signal.SIGKILL)
    assert bench.go("--seeds", "0", "--only", "default") == 0
    assert [r["row"] for r in bench.records()] == ["stock", "default"]


def test_half_a_line_of_a_killed_process_is_dropped(bench):
    bench.go("--seeds", "0", "--only", "default")
    results = bench.out / "three.jsonl"
    whole = results.read_text()
    results.write_text(whole + whole[:50])
    assert bench.go("--seeds", "0", "--only", "default", "shape") == 0
    assert [r["row"] for r in bench.records()] == ["default", "shape"]
    results.write_text("{\n" + whole)
    assert bench.go("--tables") == 2


def test_a_run_that_was_cut_off_is_resumed_if_its_settings_are_the_same(bench, tiny_set, monkeypatch):
    job = ablate.Job("default", 0, str(tiny_set))
    folder = bench.runs / job.name
    monkeypatch.setattr(ablate, "state_of", lambda folder: "resume" if folder.exists() else "new")
    bench.trainings.fail = [job.name]
    folder.mkdir(parents=True)
    assert bench.go("--seeds", "0", "--only", "default") == 1  # nobody knows of what settings the folder is
    assert not any("resume=" in word for word in bench.trainings.words[0])
    folder.mkdir()
    (folder / "results.csv").write_text("epoch,time\n1,10\n2,20\n3,5\n")
    bench.trainings.fail = ()
    assert bench.go("--seeds", "0", "--only", "default") == 0
    assert bench.trainings.words[1][-2:] == ["train", f"resume={folder / 'weights' / 'last.pt'}"]
    (record,) = bench.records()
    assert record["resumed"] and 25 <= record["seconds"] < 60  # 20 s, then 5 s of the second start
    assert "resume" not in record["command"]


def test_state_of_a_folder(tmp_path):
    from tinyyolo import Model
    from tinyyolo.engine import checkpoint

    assert ablate.state_of(tmp_path) == "new"
    last = tmp_path / "weights" / "last.pt"
    last.parent.mkdir()
    Model("tinyyolo-n.yaml").save(last)
    assert ablate.state_of(tmp_path) == "new"  # finished without its final validation
    checkpoint.save(last, unfinished(checkpoint.load(last)))
    assert ablate.state_of(tmp_path) == "resume"
    (tmp_path / "predictions.json").write_text("[]")
    assert ablate.state_of(tmp_path) == "done"
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    assert ablate.figures(tmp_path, False)["params"] > 1e6
    (tmp_path / "predictions.json").unlink()
    last.write_bytes(last.read_bytes()[:1000])
    assert ablate.state_of(tmp_path) == "new"


def test_tables_say_mean_deviation_published_and_changed_settings(bench):
    bench.go()
    page = (bench.out / "three.md").read_text()
    assert (bench.out / "three.png").stat().st_size > 1000
    assert "| as it is | 2.93 M | 0, 1 | 25.0 ± 7.1 | 50.0 ± 0.0 | - |" in page
    assert "| *published, AI-TOD-v2* |  |  | *21.4* |" in page
    assert "train 6 images, 26 objects; val 4 images, 17 objects. Image size: 96 px. Epochs: 1. Batch: 2." in page
    assert "Seeds: 0, 1. Machine: " in page and "AP by class" not in page
    assert page.count("tinyyolo train ") == 4 and "no longer" not in page and "\\*" not in page
    spec = {**SPEC, "rows": {"default": {"set": {"lr0": 0.5}}}, "seeds": [0, 1, 2]}
    bench.spec.write_text(yaml.safe_dump(spec))
    before = len(bench.trainings.words)
    assert bench.go() == 0
    assert len(bench.trainings.words) == before + 1  # seed 2; the others stay as they are
    page = (bench.out / "three.md").read_text()
    assert "| as it is\\* | 2.93 M | 0, 1, 2 | 30.0 ± 10.0 |" in page
    assert "| shape (no longer in the spec) |" in page


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        ({}, ["--only", "shap"], "did you mean 'shape'"),
        ({}, ["--on", "epochs=3"], "belongs in the spec"),
        ({"row": {}}, [], "row: unknown key"),
        ({"rows": {}}, [], "rows: expected a mapping"),
        ({"rows": {"a": {"override": {}}}}, [], "rows.a.override: unknown key"),
        ({"rows": {"a": {"set": {"hed.objectness": 1}}}}, [], "no section 'hed'"),
        ({"rows": {"a": {"set": {"epoch": 1}}}}, [], "epoch: unknown argument"),
        ({"base": "none.yaml"}, [], "none.yaml"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(bench, capsys, change, words, says):
    bench.spec.write_text(yaml.safe_dump({**SPEC, **change}))
    assert bench.go(*words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not bench.trainings.words


def test_base_and_data_per_seed(bench, tmp_path, tiny_set, capsys):
    for seed in (0, 1):
        (tmp_path / f"half-{seed}.yaml").write_text(tiny_set.read_text())
    child = tmp_path / "child.yaml"
    child.write_text(yaml.safe_dump({"base": "three.yaml", "train": {"epochs": 7}}))
    words = [str(child), "--list", "--data", str(tmp_path / "half-{seed}.yaml"), "--only", "default"]
    assert ablate.main([*words, "--out", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "epochs=7" in first and "imgsz=96" in first and "data=half-0.yaml seed=0" in first
    assert "data=half-1.yaml seed=1" in second
    assert ablate.Job("default", 0, words[3]).title == ablate.Job("default", 1, words[3]).title


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_row_of_the_specs_is_accepted(path, tmp_path):
    ablation = ablate.Ablation(path, tmp_path, tmp_path)
    jobs = ablation.jobs([], [0], ["toy-easy.yaml"])
    models = [load_model_yaml(k["model"], {n: v for n, v in k.items() if "." in n}) for k in ours(ablation, jobs)]
    for model in models:
        build(ASSIGNERS, model.get("head", model.get("rpn"))["assigner"], "assigner")
    assert len({ablate.fingerprint(ablation.settings(job)) for job in jobs}) == len(jobs)


def ours(ablation, jobs):
    return [ablation.keys(job) for job in jobs if "peer" not in ablation.rows[job.row]]


def test_peers_are_scored_on_the_original_annotations(tmp_path, tiny_set):
    """Ultralytics numbers classes from 1 and images by their name; ids in the JSON are others."""
    notes = load(tiny_set).read("val")
    x1, y1, x2, y2 = notes.boxes.T.tolist()
    names = [notes.file_names[i] for i in notes.image_index]
    found = [
        {"image_id": "val_0", "file_name": name, "category_id": int(label) + 1, "bbox": box, "score": 0.9}
        for name, label, box in zip(
            names, notes.labels, np.stack([x1, y1, np.subtract(x2, x1), np.subtract(y2, y1)], 1).tolist(), strict=True
        )
    ]
    peers.score(str(tiny_set), found, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == pytest.approx(1.0)
    peers.score(str(tiny_set), [], tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == 0
    assert peers.main(["model=yolov8n-p2.yaml"]) == 2


def test_a_new_key_at_its_default_leaves_recorded_runs_as_they_were(bench, tiny_set, monkeypatch):
    ablation = ablate.Ablation(bench.spec, bench.out, bench.runs)
    job = ablate.Job("default", 0, str(tiny_set))
    before = ablate.fingerprint(ablation.settings(job))
    monkeypatch.setitem(keys.OWN, "brand_new", 0)
    monkeypatch.setitem(keys.KEYS, "brand_new", keys.KEYS["paste"])
    assert ablate.fingerprint(ablation.settings(job)) == before
    ablation.spec["train"]["brand_new"] = 1
    assert ablate.fingerprint(ablation.settings(job)) != before


def test_runs_from_scratch_are_those_recorded_before_there_were_starting_weights(bench, tiny_set):
    """They said pretrained=true, which did nothing then."""
    ablation = ablate.Ablation(bench.spec, bench.out, bench.runs)
    job = ablate.Job("default", 0, str(tiny_set))
    started = ablation.settings(job)
    ablation.spec["train"]["pretrained"] = False
    scratch = ablation.settings(job)
    assert scratch["pretrained"] is True and started == {**scratch, "pretrained": "shipped"}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_published_comparisons_are_from_scratch(path):
    spec = yaml.safe_load(path.read_text())
    if path.stem == "school":  # it compares starts
        assert {row["set"]["pretrained"] for row in spec["rows"].values()} == {True, False}
    else:
        assert spec["train"]["pretrained"] is False
