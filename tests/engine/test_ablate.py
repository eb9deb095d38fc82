"""Bookkeeping of `tinyyolo ablate`: what runs, what is recorded, what the tables say. The training is replaced."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.support.checkpoints import unfinished
from tinyyolo.assigners import ASSIGNERS
from tinyyolo.cli import main
from tinyyolo.config import build, find_yaml, load_model_yaml, load_yaml, yaml_names
from tinyyolo.engine import keys
from tinyyolo.engine.ablate import harness
from tinyyolo.engine.ablate.spec import Job, Spec
from tinyyolo.engine.history.provenance import TOP
from tinyyolo.engine.history.records import fingerprint, state_of

OURS = sorted((TOP / "benchmarks" / "specs").glob("*.yaml"))
SPECS = [*OURS, *(find_yaml(name, "cfg/specs") for name in yaml_names("cfg/specs"))]
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
    """A spec, the fake trainings, and `go(*words)`, which runs the command on them."""
    trainings = Trainings()
    monkeypatch.setattr(harness.subprocess, "run", trainings)
    spec = tmp_path / "three.yaml"
    spec.write_text(yaml.safe_dump(SPEC, sort_keys=False))
    places = [f"out={tmp_path / 'out'}", f"runs={tmp_path / 'runs'}", f"data={tiny_set}"]

    def go(*words):
        return main(["ablate", str(spec), *places, *words])

    def records():
        return [json.loads(line) for line in (tmp_path / "out/three.jsonl").read_text().splitlines()]

    return SimpleNamespace(
        go=go, spec=spec, trainings=trainings, records=records, out=tmp_path / "out", runs=tmp_path / "runs/three"
    )


def test_a_finished_run_never_runs_again(bench):
    assert bench.go("seeds=0") == 0
    assert [(r["row"], r["seed"]) for r in bench.records()] == [("default", 0), ("shape", 0), ("stock", 0)]
    assert bench.go("seeds=0") == 0
    assert len(bench.trainings.words) == len(bench.records()) == 3
    assert bench.go("only=shape") == 0  # seeds of the spec: 1 is left
    assert [(r["row"], r["seed"]) for r in bench.records()[3:]] == [("shape", 1)]
    assert len(bench.trainings.words) == 4


def test_two_workers_share_the_runs(bench):
    assert bench.go("cpus=[0,0]") == 0
    assert sorted((r["row"], r["seed"]) for r in bench.records()) == sorted(
        (row, seed) for row in SPEC["rows"] for seed in (0, 1)
    )
    assert all(words[:3] == ["taskset", "-c", "0"] for words in bench.trainings.words)


def test_the_record_names_the_command_that_ran(bench, tiny_set):
    bench.go("only=[shape,stock]", "seeds=1", "device=cpu")
    shape, stock = bench.trainings.words
    assert shape[1:4] == ["-m", "tinyyolo.cli", "train"]
    common = {"epochs=1", "imgsz=96", "batch=2", "device=cpu", "seed=1", f"data={tiny_set}"}
    assert common | {"head.assigner={type: shape, ratio: 4.0}", "lr0=0.01", "model=tinyyolo-n.yaml"} <= set(shape)
    assert stock[1] == str(TOP / "benchmarks" / "peers.py") and common | {"model=yolov8n-p2.yaml"} <= set(stock)
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
    bench.trainings.fail = [Job("shape", 0, str(tiny_set)).name]
    assert bench.go("seeds=0") == 1
    assert "FAILED" in (said := capsys.readouterr().out) and "the cause" in said
    assert [r["row"] for r in bench.records()] == ["default", "stock"]
    bench.trainings.fail = ()
    assert bench.go("seeds=0") == 0
    assert [r["row"] for r in bench.records()] == ["default", "stock", "shape"]


def test_a_run_in_flight_is_left_alone_until_its_process_dies(bench, tiny_set, capsys):
    job = Job("default", 0, str(tiny_set))
    bench.runs.mkdir(parents=True)
    words = [sys.executable, "-c", HOLD + "; time.sleep(60)", str(bench.runs / f"{job.name}.lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert bench.go("seeds=0", "only=[default,stock]") == 0
        assert "another process" in capsys.readouterr().out
        assert [r["row"] for r in bench.records()] == ["stock"]
        os.kill(holder.pid, signal.SIGKILL)
    assert bench.go("seeds=0", "only=default") == 0
    assert [r["row"] for r in bench.records()] == ["stock", "default"]


def test_half_a_line_of_a_killed_process_is_dropped(bench):
    bench.go("seeds=0", "only=default")
    results = bench.out / "three.jsonl"
    whole = results.read_text()
    results.write_text(whole + whole[:50])
    assert bench.go("seeds=0", "only=[default,shape]") == 0
    assert [r["row"] for r in bench.records()] == ["default", "shape"]
    results.write_text("{\n" + whole)
    assert bench.go("tables=true") == 2


def test_a_run_that_was_cut_off_is_resumed_if_its_settings_are_the_same(bench, tiny_set, monkeypatch):
    job = Job("default", 0, str(tiny_set))
    folder = bench.runs / job.name
    monkeypatch.setattr(harness, "state_of", lambda folder: "resume" if folder.exists() else "new")
    bench.trainings.fail = [job.name]
    folder.mkdir(parents=True)
    assert bench.go("seeds=0", "only=default") == 1  # nobody knows of what settings the folder is
    assert not any("resume=" in word for word in bench.trainings.words[0])
    folder.mkdir()
    (folder / "results.csv").write_text("epoch,time\n1,10\n2,20\n3,5\n")
    bench.trainings.fail = ()
    assert bench.go("seeds=0", "only=default") == 0
    assert bench.trainings.words[1][-2:] == ["train", f"resume={folder / 'weights' / 'last.pt'}"]
    (record,) = bench.records()
    assert record["resumed"] and 25 <= record["seconds"] < 60  # 20 s, then 5 s of the second start
    assert "resume" not in record["command"]


def test_a_folder_that_was_finished_before_keeps_the_commit_that_trained_it(bench, tiny_set, capsys):
    from tinyyolo import Model
    from tinyyolo.engine import checkpoint

    folder = bench.runs / Job("default", 0, str(tiny_set)).name
    bench.go("seeds=0", "only=default")
    (folder / "peer.json").unlink()
    Model("tinyyolo-n.yaml").save(folder / "weights" / "last.pt")
    last = checkpoint.load(folder / "weights" / "last.pt")
    checkpoint.save(folder / "weights" / "last.pt", {**last, "commit": "0123456789ab, ba9876543210+"})
    (folder / "predictions.json").write_text("[]")
    (bench.out / "three.jsonl").unlink()
    assert "before" not in capsys.readouterr().out
    assert bench.go("seeds=0", "only=default") == 0 and len(bench.trainings.words) == 1
    assert f"{folder}: its figures are taken as they are" in capsys.readouterr().out
    assert bench.records()[0]["commit"] == "0123456789ab, ba9876543210+"


def test_state_of_a_folder(tmp_path):
    from tinyyolo import Model
    from tinyyolo.engine import checkpoint

    assert state_of(tmp_path) == "new"
    last = tmp_path / "weights" / "last.pt"
    last.parent.mkdir()
    Model("tinyyolo-n.yaml").save(last)
    assert state_of(tmp_path) == "new"  # finished without its final validation
    checkpoint.save(last, unfinished(checkpoint.load(last)))
    assert state_of(tmp_path) == "resume"
    for name, content in (("predictions.json", []), ("metrics.json", METRICS)):  # of its last validation
        assert state_of(tmp_path) == "resume"
        (tmp_path / name).write_text(json.dumps(content))
    assert state_of(tmp_path) == "resume", "the files of a validation do not end a run that says it goes on"
    checkpoint.save(last, {**checkpoint.load(last), "resume": None})
    assert state_of(tmp_path) == "done"
    assert harness.figures_of(tmp_path, {"imgsz": 96})["params"] > 1e6
    last.write_bytes(last.read_bytes()[:1000])
    assert state_of(tmp_path) == "new"


def test_tables_say_mean_deviation_published_and_changed_settings(bench):
    bench.go()
    page = (bench.out / "three.md").read_text()
    assert (bench.out / "three.png").stat().st_size > 1000
    assert "| as it is | 0, 1 | 25.0 ± 7.1 | 50.0 ± 0.0 | - | 30.0 ± 0.0 | 2.93 | 0.00 ± 0.00 |" in page
    assert "| *published, AI-TOD-v2* |  | *21.4* | *-* |" in page
    assert "train 6 images, 26 objects; val 4 images, 17 objects. Image size: 96 px. Epochs: 1. Batch: 2." in page
    assert "Seeds: 0, 1. Machine: " in page and "AP by class" not in page
    assert page.count("tinyyolo train ") == 4 and "no longer" not in page and "<sup>" not in page
    spec = {**SPEC, "rows": {"default": {"set": {"lr0": 0.5}}}, "seeds": [0, 1, 2]}
    bench.spec.write_text(yaml.safe_dump(spec))
    before = len(bench.trainings.words)
    assert bench.go() == 0
    assert len(bench.trainings.words) == before + 1  # seed 2; the others stay as they are
    page = (bench.out / "three.md").read_text()
    assert "| as it is <sup>a</sup> | 0, 1, 2 | 30.0 ± 10.0 |" in page
    assert "| shape (no longer in the spec) |" in page and "<sup>a</sup> its seeds ran with different settings" in page


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        ({}, ["only=shap"], "did you mean 'shape'"),
        ({}, ["seed=3"], "use seeds="),
        ({}, ["cpus=two"], "expected cores such as 0"),
        ({"rows": {"a": {"set": {"save_dir": "x"}}}}, [], "rows.a.set.save_dir: each run has its own; use runs="),
        ({"rows": {"../../a": {}}}, [], "a row's name is part of a file's name"),
        ({"rows": {"a": 3}}, [], "rows={'a': 3}: expected a mapping or null, found a whole number"),
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
    halves = str(tmp_path / "half-{seed}.yaml")
    assert main(["ablate", str(child), "plan=true", f"data={halves}", "only=default", f"out={tmp_path}"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "epochs=7" in first and "imgsz=96" in first and "data=half-0.yaml seed=0" in first
    assert "data=half-1.yaml seed=1" in second
    assert Job("default", 0, halves).title == Job("default", 1, halves).title


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_row_of_the_specs_is_accepted(path, tmp_path):
    ablation = Spec(path, tmp_path)
    jobs = ablation.jobs(seeds=[0], data=["toy-easy.yaml"])
    models = [load_model_yaml(k["model"], {n: v for n, v in k.items() if "." in n}) for k in ours(ablation, jobs)]
    for model in models:
        build(ASSIGNERS, model.get("head", model.get("rpn"))["assigner"], "assigner")
    assert len({fingerprint(ablation.settings(job)) for job in jobs}) == len(jobs)


def ours(ablation, jobs):
    return [ablation.keys(job) for job in jobs if "peer" not in ablation.rows[job.row]]


def test_a_new_key_at_its_default_leaves_recorded_runs_as_they_were(bench, tiny_set, monkeypatch):
    ablation = Spec(bench.spec, bench.runs)
    job = Job("default", 0, str(tiny_set))
    before = fingerprint(ablation.settings(job))
    monkeypatch.setitem(keys.OWN, "brand_new", 0)
    monkeypatch.setitem(keys.KEYS, "brand_new", keys.KEYS["paste"])
    assert fingerprint(ablation.settings(job)) == before
    ablation.content["train"]["brand_new"] = 1
    assert fingerprint(ablation.settings(job)) != before


def test_runs_from_scratch_are_those_recorded_before_there_were_starting_weights(bench, tiny_set):
    """They said pretrained=true, which did nothing then."""
    ablation = Spec(bench.spec, bench.runs)
    job = Job("default", 0, str(tiny_set))
    started = ablation.settings(job)
    ablation.content["train"]["pretrained"] = False
    scratch = ablation.settings(job)
    assert scratch["pretrained"] is True and started == {**scratch, "pretrained": "shipped"}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_published_comparisons_are_from_scratch(path):
    spec = load_yaml(path)
    if path.stem == "school":  # it compares starts
        assert {row["set"]["pretrained"] for row in spec["rows"].values()} == {True, False}
    else:
        assert spec["train"]["pretrained"] is False
