"""What a checkpoint must hold: each part left out, of another kind or shape is one line that names it."""

import copy
import random
import resource
import time

import pytest
import torch
from torch import nn

from tests.support.checkpoints import NAMES, content, saved, unfinished
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.engine import checkpoint
from tinyyolo.engine.contents import check_optimizer
from tinyyolo.export.safetensors import safetensors

FIRST = "backbone.stem.conv.weight"  # (4, 3, 3, 3)


@pytest.fixture(scope="module")
def sound():
    return checkpoint.plain(content())


def put(held, place, value):
    """A copy of `held` with another value at the end of the keys `place`; `...` leaves it out."""
    out = copy.deepcopy(held)
    node = out
    for key in place[:-1]:
        node = node[key]
    if value is ...:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return out


def refused(path, says):
    with pytest.raises(UserError, match=says) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


class TestSound:
    def test_torch(self, sound, tmp_path):
        found = checkpoint.load(saved(sound, tmp_path / "a.pt"))
        same(found["model"], sound["model"])
        assert found["names"] == NAMES and found["yaml"] == sound["yaml"]

    def test_safetensors(self, sound, tmp_path):
        safetensors(sound, tmp_path / "a.safetensors")
        found = checkpoint.load(tmp_path / "a.safetensors")
        same(found["model"], sound["model"])
        assert {key: found[key] for key in sound if key != "model"} == {k: v for k, v in sound.items() if k != "model"}

    def test_names_as_a_list_and_half_precision(self, sound, tmp_path):
        half = {name: x.half() if x.is_floating_point() else x for name, x in sound["model"].items()}
        path = saved({**sound, "names": ["dark", "bright"], "model": half}, tmp_path / "a.pt")
        model = Model(path).model
        assert model.names == NAMES and next(model.parameters()).dtype == torch.float32

    def test_the_check_draws_no_random_numbers(self, sound, tmp_path):
        path = saved(sound, tmp_path / "a.pt")
        torch.manual_seed(3), random.seed(3)
        before = torch.get_rng_state(), random.getstate()
        checkpoint.load(path)
        assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("names",), ..., "it lacks names"),
        (("format",), "1", "format: expected a whole number, found a word"),
        (("format",), 2, "written by a newer tinyyolo"),
        (("yaml",), ["tinyyolo-n"], "yaml: expected a mapping, found a list"),
        (("yaml",), {}, "detector=null: unknown"),
        (("yaml", "detector"), "two_stages", "did you mean 'two_stage'"),
        (("yaml", "base"), "/etc/passwd", "base: no section"),
        (("yaml", "head"), {"type": "yolo", 3: {(1, 2): 3}}, "yaml: no plain values"),
        (("yaml", "nc"), 3, "2 names, but nc=3 in its model YAML"),
        (("yaml", "nc"), "two", "2 names, but nc=two"),
        (("names",), {}, "names={}: expected the class names 0, 1, 2"),
        (("names",), {0: "dark", 2: "bright"}, "expected the class names 0, 1, 2"),
        (("names",), {"9" * 5000: "dark"}, "names: expected a whole number, found a word"),
        (("names",), {0: "dark", 1: None}, r"names\[...\]: expected a word, found null"),
        (("names",), "dark bright", "names: expected a mapping, found a word"),
        (("names",), {i: str(i) for i in range(3)}, "3 names, but nc=2"),
        (("train_args",), None, "train_args: expected a mapping, found null"),
        (("train_args", "classes"), {1, 2}, None),
        (("train_args", "classes"), b"1", "train_args: no plain values"),
        (("model",), [1], "model: expected a mapping, found a list"),
        (("model", FIRST), ..., f"{FIRST} is missing"),
        (("model", FIRST), 3, f"model: .*: {FIRST}=3 is no tensor"),
        (("model", 3), torch.zeros(1), "key in model: expected a word"),
        (("model", "more"), torch.zeros(1), "more is none of its tensors"),
        (("model", FIRST), torch.zeros(4, 3, 3), rf"{FIRST} has the shape \(4, 3, 3\), the YAML's \(4, 3, 3, 3\)"),
        (("model", FIRST), torch.zeros(4, 3, 3, 3, dtype=torch.int32), f"{FIRST} is of torch.int32"),
        (("model", FIRST), torch.zeros(4, 3, 3, 3, dtype=torch.complex64), f"{FIRST} is of torch.complex64"),
        (("model", FIRST), torch.full((4, 3, 3, 3), torch.nan), f"{FIRST} has values that are not finite"),
        (("thresholds",), [0.1], r"thresholds=\[0.1\]: expected 2, one a class"),
        (("thresholds",), [0.1, "x"], r"thresholds\[1\]: expected a number, found a word"),
        (("thresholds",), [0.1, float("nan")], "expected numbers from 0 to 1"),
        (("thresholds",), 0.1, "thresholds: expected a list, found a number"),
        (("resume",), 3, "resume: expected a mapping, found a whole number"),
        (("resume",), {}, "missing required field"),
    ],
)
def test_a_part_that_does_not_fit_is_named(sound, tmp_path, place, value, says):
    path = saved(put(sound, place, value), tmp_path / "a.pt")
    if says is None:
        assert checkpoint.load(path)["train_args"]["classes"] == [1, 2]
    else:
        refused(path, says)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("epoch",), ..., "missing required field epoch"),
        (("epoch",), "first", "epoch: expected a whole number"),
        *[(("resume", key), ..., f"resume: object missing required field {key}") for key in
          ("model", "optimizer", "scaler", "updates", "best_fitness", "stopper")],
        (("resume", "model", FIRST), torch.zeros(1), f"resume.model: .*{FIRST} has the shape"),
        (("resume", "optimizer"), [], "resume.optimizer: expected a mapping"),
        (("resume", "optimizer", "param_groups"), ..., "resume.optimizer: object missing required field param_groups"),
        (("resume", "optimizer", "param_groups", 0, "params"), 7, r"param_groups\[0\].params: expected a list"),
        (("resume", "stopper", "best_epoch"), 0.5, "resume.stopper.best_epoch: expected a whole number"),
    ],
)  # fmt: skip
def test_a_part_to_resume_from_that_does_not_fit_is_named(sound, tmp_path, place, value, says):
    refused(saved(put(unfinished(sound), place, value), tmp_path / "last.pt"), says)


@pytest.mark.parametrize("args", [{"lr0": "fast"}, {"epochs": 0}, {"batch": [2]}])
def test_arguments_that_no_training_takes_do_not_resume(sound, tmp_path, args):
    path = saved(unfinished({**sound, "train_args": args}), tmp_path / "last.pt")
    with pytest.raises(UserError, match=rf"last\.pt: train_args: {next(iter(args))}="):
        checkpoint.to_resume(path, {})


class TestOptimizer:
    @pytest.fixture
    def optimizer(self):
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        return optimizer

    def test_its_own_state_fits(self, optimizer):
        check_optimizer(optimizer, optimizer.state_dict())

    @pytest.mark.parametrize(
        ("place", "value", "says"),
        [
            (("param_groups",), [], r"param_groups: of \[\] parameters, the model's are of \[2\]"),
            (("param_groups", 0, "params"), [0], r"of \[1\] parameters, the model's are of \[2\]"),
            (("param_groups", 0, "momentum"), ..., r"param_groups\[0\]: it lacks momentum"),
            (
                ("state", 1, "momentum_buffer"),
                torch.zeros(3),
                r"state\[1\].momentum_buffer has the shape \(3,\), .*\(2,\)",
            ),
        ],
    )
    def test_another_state(self, optimizer, place, value, says):
        with pytest.raises(UserError, match=says):
            check_optimizer(optimizer, put(optimizer.state_dict(), place, value))


class TestForeign:
    @pytest.mark.parametrize(
        ("held", "says"),
        [
            ({"state_dict": {}, "meta": {}}, r"a bare state_dict; .*Model\('NAME.yaml'\).load\('a.pt'\)"),
            ({"layer.weight": torch.zeros(2)}, "a bare state_dict"),
            ({"state": {}, "param_groups": []}, "the state of an optimizer, without a model"),
            ({"model": {"a": torch.zeros(1)}, "epoch": 3}, "it lacks format, yaml, names, train_args"),
            ([torch.zeros(1)], "it holds a list alone"),
            (torch.zeros(1), "it holds a Tensor alone"),
        ],
    )
    def test_it_says_what_it_is(self, tmp_path, held, says):
        refused(saved(held, tmp_path / "a.pt"), says)

    def test_a_network_of_ultralytics(self, tmp_path):
        from ultralytics.nn.modules import Conv

        refused(
            saved({"epoch": -1, "model": Conv(3, 4)}, tmp_path / "yolov8n.pt"),
            "it pickles ultralytics.nn.modules.conv.Conv, which is code .* start from model=tinyyolo-n.yaml",
        )

    def test_objects_of_others(self, tmp_path):
        held = {"state_dict": {"a": torch.zeros(1)}, "message_hub": random.Random(0)}
        refused(saved(held, tmp_path / "mmdet.pth"), "it pickles random.Random, .* save the state_dict alone")

    def test_bare_weights_go_into_a_model_whatever_their_name(self, sound, tmp_path):
        spec = {key: value for key, value in sound["yaml"].items() if key != "nc"}
        import yaml

        (tmp_path / "own.yaml").write_text(yaml.safe_dump({**spec, "nc": 2}))
        for name in ("bare.pt", "bare.pth"):
            model = Model(tmp_path / "own.yaml").load(saved(sound["model"], tmp_path / name))
            same(model.model.state_dict(), sound["model"])


class TestHostileYaml:
    """A model that a few words name and no memory holds is refused before it is built."""

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("yaml", "backbone", "channels"), [10**9] * 2),
            (("yaml", "backbone", "channels"), [4, 10**6]),
            (("yaml", "backbone", "depths"), [10**9]),
            (("yaml", "neck"), {"type": "rfp", "channels": 4, "steps": 10**9}),
            (("yaml", "neck"), {"type": "fpn", "channels": 4, "levels": 10**9}),
            (("yaml", "neck"), {"type": "hrfpn", "channels": 4, "levels": 10**9}),
            (("yaml", "backbone", "channels"), [10**30] * 2),
        ],
    )
    def test_it_is_one_line_at_once(self, sound, tmp_path, place, value):
        path = saved(put(sound, place, value), tmp_path / "a.pt")
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        refused(path, r"a\.pt: ")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB"
        assert time.perf_counter() - start < 10

    def test_it_reads_no_file(self, sound, tmp_path):
        path = saved(put(sound, ("yaml", "backbone", "weights"), "/etc/passwd"), tmp_path / "a.pt")
        assert "weights" not in Model(path).model.yaml["backbone"], "the file is not looked for"

    @pytest.mark.parametrize("key", ["save_dir", "project", "name", "data", "pretrained"])
    def test_its_recipe_does_not_say_where_a_run_writes_or_reads(self, sound, tmp_path, tiny_set, key):
        path = saved(put(sound, ("yaml", "train"), {key: str(tmp_path / "elsewhere")}), tmp_path / "a.pt")
        with pytest.raises(UserError, match=rf"train\.{key}=.*: not a model's to say"):
            Model(path).train(data=tiny_set, epochs=1, imgsz=64)
        assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "runs").exists()
