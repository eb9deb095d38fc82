"""Every model YAML builds, runs, learns and accepts an image without objects."""

import copy
import random

import pytest
import torch

from tinyyolo.assigners import ASSIGNERS
from tinyyolo.config import UserError, load_model_yaml, yaml_names
from tinyyolo.detectors.build import build_model
from tinyyolo.engine import checkpoint

BIG = ("r50", "r101", "w32", "d53", "vgg16", "trident")
SMALL_SIZE = 128
MODELS = yaml_names("cfg/models")
QUICK = [name for name in MODELS if not any(size in name for size in BIG)]


def batch_of(size, boxes):
    """An engine batch of two images; objects in the first only."""
    count = len(boxes)
    return {
        "img": torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)),
        "batch_idx": torch.zeros(count),
        "cls": torch.arange(count).view(-1, 1) % 2,
        "bboxes": torch.tensor(boxes).view(-1, 4),
        "ignore_bboxes": torch.tensor([[0.8, 0.8, 0.1, 0.1]]),
        "ignore_idx": torch.zeros(1),
    }


@pytest.mark.parametrize("name", MODELS)
def test_yaml_loads_and_says_what_it_is(name):
    spec = load_model_yaml(name)
    assert spec["detector"] in {"one_stage", "two_stage"}
    assert "base" not in spec


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in QUICK)]
)
def test_yaml_builds_runs_and_learns(name):
    torch.manual_seed(0)
    model = build_model(load_model_yaml(name), num_classes=3)
    model.train()
    total, parts = model.loss(
        batch_of(SMALL_SIZE, [[0.3, 0.3, 0.08, 0.06], [0.6, 0.5, 0.1, 0.12], [0.2, 0.7, 0.3, 0.3]])
    )
    assert torch.isfinite(total) and all(torch.isfinite(part) for part in parts.values())
    total.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    empty, _ = model.loss(batch_of(SMALL_SIZE, []))
    assert torch.isfinite(empty)
    model.eval()
    with torch.no_grad():
        y, _ = model(torch.rand(2, 3, SMALL_SIZE, SMALL_SIZE))
    assert y.shape[:2] == (2, 4 + 3) and y.dtype == torch.float32
    assert torch.isfinite(y).all() and y[:, 4:].min() >= 0 and y[:, 4:].max() <= 1


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"head.assigner.topq": 3}, "head.assigner.topq: .*did you mean 'topk'"),
        ({"head.assigner.type": "rankin"}, "head.assigner.type=rankin: .*did you mean 'ranking'"),
        ({"head.assigner": "ranking"}, "head.assigner=ranking: this is a section; write head.assigner.type=ranking"),
        ({"head.assigner": "rankin"}, "head.assigner=rankin: .*did you mean 'ranking'"),
        ({"head.assigner": None}, "head.assigner=null: expected a section"),
        ({"head": "yolo"}, "head=yolo: .*write head.type=yolo"),
        ({"backbone": "darknet"}, "backbone=darknet: .*write backbone.type=darknet"),
        ({"backbone": [1]}, "backbone=.1.: expected a section"),
        ({"hed.assigner.topk": 3}, "hed.assigner.topk: .*did you mean 'head'"),
        ({"head.asigner.topk": 3}, "head.asigner: .*did you mean 'assigner'"),
        ({"head.constant.topk": 3}, "head.constant.topk=3: head.constant=12.7 is no section"),
        ({"head.assigner.topk": 0}, "head.assigner.topk=0: expected a whole number of at least 1"),
        ({"head.assigner.topk": "2.5"}, "head.assigner.topk=2.5: expected a whole number, found a number"),
        ({"head.assigner.topk": True}, "head.assigner.topk=true: expected a whole number"),
        ({"head.assigner.keep_one": 1}, "head.assigner.keep_one=1: expected true or false, found a whole number"),
        ({"head.assigner.negative_below": "low"}, "negative_below=low: expected a number or null, found a word"),
        ({"head.box_loss": {"cious": 1.0}}, "head.box_loss: unknown cious"),
        ({"head.box_loss": {"ciou": "all"}}, "head.box_loss=.*: expected a number, found a word"),
        ({"head.gains": 3}, "head.gains=3: expected a mapping or null, found a whole number"),
        ({"head.anchors": [[[6, 6]]]}, "^head.anchors and hidden: they need one entry per level, 3"),
        ({"head.anchors": "auto", "head.hidden": 3}, "^head.hidden=3: expected a list"),
        ({"head.anchors": [[[6, 0]]] * 3}, "^head.anchors need pairs .w, h. > 0 px as sizes of a level, got ..6, 0"),
        ({"head.constant": 0}, "head.constant=0: expected a number above 0"),
        ({"head.constant": ".nan"}, "head.constant=nan: expected finite numbers"),
        ({"backbone.channels": [8, 8]}, "backbone.channels=.8, 8.: "),
        ({"backbone.channels": [0, 0, 0, 0]}, "backbone.channels=.*: expected whole numbers of at least 1"),
        ({"backbone.channels": [8, 8, "a", 8]}, r"expected a whole number, found a word at channels\[2\]"),
        ({"neck.depth": 0}, "neck.depth=0: expected a whole number of at least 1"),
        ({"detector": "three_stage"}, "detector=three_stage: .*one_stage"),
        ({"detector": ["one_stage"]}, "detector=.*one_stage"),
        ({"test.votes": 0}, "test.votes=0: expected a whole number of at least 1"),
        ({"test.scor": 0.1}, "test.scor: .*did you mean 'score'"),
        ({"test.score": 5}, "test.score=5: expected a number from 0 to 1"),
        ({"test": 0.5}, "test=0.5: expected a mapping"),
        ({"train": [3]}, "^train=.3.: expected a mapping"),
    ],
)
def test_mistakes_are_one_line_with_choices(overrides, says):
    with pytest.raises(UserError, match=says) as caught:
        build_model(load_model_yaml("tinyyolo-n.yaml", overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"nc": "abc"}, "^nc=abc: expected a whole number, found a word"),
        ({"nc": 0}, "^nc=0: expected a whole number of at least 1"),
        ({"nc": 2.5}, "nc=2.5: expected a whole number"),
        ({"normalize": "foo"}, "normalize=foo: .*imagenet"),
        ({"normalize": 3}, "normalize=3: expected a mapping"),
        ({"normalize": {"mean": [0, 0, 0]}}, "normalize: it needs std"),
        ({"normalize": {"mean": [0, 0], "std": [1, 1, 1]}}, "normalize.mean=.0, 0.: expected a number for each"),
        ({"normalize": {"mean": [0, 0, 0], "std": [1, 1, 0]}}, "normalize.std=.*: expected numbers above 0"),
        ({"rpn.proposals": 0}, "rpn.proposals=0"),
        ({"rpn.nms_iou": 70}, "rpn.nms_iou=70: expected a number from 0 to 1"),
        ({"rpn.sampler.num": -1}, "rpn.sampler.num=-1"),
        ({"rpn.anchors.ratios": [0]}, "rpn.anchors.ratios=.0.: expected numbers above 0"),
        ({"rpn.anchors": "auto"}, "rpn.anchors=auto: expected a section"),
        ({"rpn.coder": "delta"}, "rpn.coder=delta: .*write rpn.coder.type=delta"),
        ({"roi.assigner": [{"type": "threshold"}]}, "roi.assigner=.*: expected a section"),
        ({"neck.type": "rfp"}, "neck: .* needs a backbone of type detectors_resnet"),
        ({"rpn.coder": {"stds": [1, 1, 1, 0]}}, "rpn.coder.stds=.*: expected numbers above 0"),
        ({"backbone.weights": 3}, "backbone.weights=3: expected the path of a file"),
        ({"backbone.depth": 1e400}, "backbone.depth=inf: expected a whole number, found a number"),
    ],
)
def test_mistakes_in_two_stages(overrides, says):
    with pytest.raises(UserError, match=says) as caught:
        build_model(load_model_yaml("faster-rcnn-r18", overrides))
    assert "\n" not in str(caught.value)


def test_another_type_replaces_its_section_in_any_order():
    keys = {"rpn.assigner.topk": 5, "rpn.assigner.type": "atss", "rpn.pre_nms": 50}
    for given in (keys, dict(reversed(keys.items()))):
        spec = load_model_yaml("faster-rcnn-r18-nwdrka", given)
        assert spec["rpn"]["assigner"] == {"type": "atss", "topk": 5}
        assigner = build_model(spec).rpn_head.assigner
        assert isinstance(assigner, ASSIGNERS["atss"]) and assigner.topk == 5
    same = load_model_yaml("faster-rcnn-r18-nwdrka", {"rpn.assigner.type": "ranking"})
    assert same == load_model_yaml("faster-rcnn-r18-nwdrka"), "the type it has already"


@pytest.mark.parametrize("kind", ASSIGNERS)
@pytest.mark.parametrize(("name", "section"), [("tinyyolo-n", "head"), ("faster-rcnn-r18", "rpn")])
def test_every_assigner_by_its_dotted_key(kind, name, section):
    model = build_model(load_model_yaml(name, {f"{section}.assigner.type": kind}))
    head = model.rpn_head if section == "rpn" else model.bbox_head
    assert type(head.assigner) is ASSIGNERS[kind]


def test_a_new_head_takes_the_keys_that_come_with_it():
    keys = {"neck.type": "fpn", "neck.channels": 16, "neck.levels": 4, "head.assigner.type": "threshold"}
    keys |= {"head.anchors.strides": [4, 8, 16, 32], "head.anchors.scales": [2], "head.anchors.ratios": [1]}
    spec = load_model_yaml("tinyyolo-n", {**keys, "head.type": "retina", "head.convs": 1})
    assert "box_loss" not in spec["head"] and len(build_model(spec).bbox_head.grid.strides) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "expected a YAML mapping at the top, found list"),
        ("", "expected a YAML mapping at the top"),
        ("backbone: {", "not readable as YAML"),
        ("nc: 3", "no key 'detector'"),
        ("base: own.yaml", "own.yaml leads back to itself"),
        ("base: other.yaml", "leads back to itself"),
        ("base: missing.yaml", "own.yaml: base=missing.yaml: no such file"),
        ("base: [tinyyolo-n.yaml]", "expected the name of a YAML"),
        ("base: null", "base=null: expected the name of a YAML"),
        ("{base: tinyyolo-n.yaml, 3: 4}", "3: no section"),
        ("{base: tinyyolo-n.yaml, head: yolo}", "head=yolo"),
        ("{base: tinyyolo-n.yaml, head: {assigner: ranking}}", "head.assigner=ranking"),
        ("detector: one_stage", "needs the section backbone, neck, head"),
    ],
)
def test_a_yaml_that_is_none_is_one_line(tmp_path, text, says):
    (tmp_path / "own.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("base: own.yaml")
    with pytest.raises(UserError, match=says) as caught:
        build_model(load_model_yaml(tmp_path / "own.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {},
        None,
        [],
        {"detector": "one_stage"},
        {"detector": "one_stage", "backbone": 3},
        {"detector": "one_stage", "backbone": 3, "neck": [], "head": None},
    ],
)
def test_what_a_checkpoint_may_hold_instead_of_a_yaml(content):
    held = {"yaml": content, "names": {0: "a"}, "model": {}, "train_args": {}}
    for build in (lambda: build_model(content, 3), lambda: checkpoint.to_model(held, "best.pt")):
        with pytest.raises(UserError) as caught:
            build()
        assert "\n" not in str(caught.value)


SHRUNK = {
    "tinyyolo-n.yaml": {"backbone.channels": [8] * 4, "neck.channels": [8] * 3, "head.hidden": [8] * 3},
    "retinanet-r18-nwdrka.yaml": {"backbone.depth": 10, "neck.channels": 8, "head.channels": 8, "head.pre_nms": 50},
    "fcos-r18.yaml": {"backbone.depth": 10, "neck.channels": 8, "head.channels": 8, "head.norm_groups": 2},
    "foveabox-r50.yaml": {"backbone.depth": 10, "neck.channels": 8, "head.channels": 8, "head.pre_nms": 50},
    "reppoints-r50.yaml": {"backbone.depth": 10, "neck.channels": 8, "head.channels": 8, "head.pre_nms": 50},
    "faster-rcnn-r18-nwdrka.yaml": {"backbone.depth": 10, "neck.channels": 8, "rpn.channels": 8, "roi.channels": 8},
    "retinanet-r18-rfla.yaml": {"backbone.depth": 10, "neck.channels": 8, "head.channels": 8, "head.pre_nms": 50},
    "faster-rcnn-r18-rfla.yaml": {"backbone.depth": 10, "neck.channels": 8, "rpn.channels": 8, "roi.channels": 8},
    "faster-rcnn-r18-simd.yaml": {"backbone.depth": 10, "neck.channels": 8, "rpn.channels": 8, "roi.channels": 8},
    "faster-rcnn-r18.yaml": {"backbone.depth": 10, "neck.channels": 8, "rpn.channels": 8, "roi.channels": 8},
    "cascade-rcnn-r18-nwdrka.yaml": {"backbone.depth": 10, "neck.channels": 8, "rpn.channels": 8, "roi.channels": 8},
    "yolov3-slim.yaml": {"backbone.width": 2, "neck.channels": [4] * 3},
    "ssd-slim.yaml": {"backbone.width": 4, "neck.channels": [8] * 2, "head.pre_nms": 50},
    "grid-rcnn-r18-nwdrka.yaml": {
        "backbone.depth": 10,
        "neck.channels": 8,
        "rpn.channels": 8,
        "rpn.proposals": 20,
        "roi.channels": 8,
        "roi.grid_channels": 9,
        "roi.grid_convs": 1,
        "roi.grid_pool_size": 4,
    },
    "tridentnet-r18-nwdrka.yaml": {
        "backbone.depth": 10,
        "rpn.channels": 8,
        "rpn.proposals": 20,
        "rpn.train_proposals": 8,
        "roi.depth": 10,
    },
    "detectors-slim-nwdrka.yaml": {"backbone.width": 4, "neck.channels": 8, "rpn.channels": 8, "roi.channels": 8},
}
OWN = {  # the sections that are not those of another model above
    "retinanet-r18-rfla.yaml": ("head",),
    "faster-rcnn-r18-rfla.yaml": ("rpn",),
    "faster-rcnn-r18-simd.yaml": ("rpn",),
    "faster-rcnn-r18-nwdrka.yaml": ("rpn",),
    "cascade-rcnn-r18-nwdrka.yaml": ("roi",),
    "grid-rcnn-r18-nwdrka.yaml": ("roi",),
    "tridentnet-r18-nwdrka.yaml": ("backbone", "neck", "rpn", "roi"),
    "detectors-slim-nwdrka.yaml": ("backbone", "neck", "roi"),
}
WRONG = ["word", [1, 2], [], -1, 0, 0.5, float("nan"), None, True, {"a": 1}]
ELSEWHERE = ("train", "published")  # the engine checks the one, the other is for people
SAMPLE = 120


def places(node, path=()):
    """Paths of all sections and values of a model YAML; a list of numbers is one value."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if path or key not in ELSEWHERE:
            yield (*path, key)
            if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
                yield from places(value, (*path, key))


def replaced(spec, path, value):
    spec = copy.deepcopy(spec)
    node = spec
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return spec


def refused_or_runs(spec):
    """Whether a spec is refused, in one line; otherwise its model must run a batch."""
    try:
        model = build_model(spec)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return True
    batch = batch_of(SMALL_SIZE, [[0.3, 0.3, 0.08, 0.06], [0.6, 0.5, 0.1, 0.12]])
    batch["cls"] %= model.nc
    model.train().loss(batch)
    with torch.no_grad():
        model.eval()(batch["img"])
    return False


def wrong_specs(names):
    for name in names:
        spec = load_model_yaml(name, SHRUNK.get(name))
        own = [path for path in places(spec) if path[0] in OWN.get(name, spec)]
        yield from ((name, spec, path, value) for path in own for value in WRONG)


def assert_refused_or_runs(cases):
    refused = 0
    for name, spec, path, value in cases:
        try:
            refused += refused_or_runs(replaced(spec, path, value))
        except Exception as error:
            raise AssertionError(f"{name}: {'.'.join(map(str, path))}={value}: {type(error).__name__}") from error
    assert refused >= len(cases) / 2


def test_wrong_values_are_refused_or_run():
    cases = list(wrong_specs(SHRUNK))
    assert_refused_or_runs(random.Random(0).sample(cases, SAMPLE))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHRUNK)  # every kind of section; the full-size models have no others
def test_every_wrong_value_is_refused_or_runs(name):
    assert_refused_or_runs(list(wrong_specs([name])))
