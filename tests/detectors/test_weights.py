"""Checkpoints of the authors and ImageNet weights: all of it matches, or nothing changes."""

import hashlib
import pickle

import pytest
import torch

from tinyyolo import Model
from tinyyolo.backbones.resnet import ResNet
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.weights import _torchvision_files, imagenet_note, load_backbone, load_reference


def slim(name="faster-rcnn-r18", **overrides):
    return build_model(
        load_model_yaml(name, {"backbone.depth": 10, "neck.channels": 8, "roi.channels": 8, **overrides})
    )


def noise(module):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(x.shape, generator=generator) if x.is_floating_point() else x.clone()
        for name, x in module.state_dict().items()
    }


def equal(module, state):
    own = module.state_dict()
    return all(torch.equal(own[name], x) for name, x in state.items())


@pytest.fixture(scope="module")
def model():
    return slim()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"meta": {"epoch": 12, "CLASSES": ("a",)}, "state_dict": s}])
@pytest.mark.parametrize("file", [True, False])
def test_both_forms_load_from_memory_and_file(wrap, file, tmp_path):
    model = slim()
    state = noise(model)
    source = wrap(state)
    if file:
        torch.save(source, tmp_path / "their.pth")
        source = tmp_path / "their.pth"
    report = load_reference(model, source)
    assert equal(model, state)
    assert set(report.loaded) == set(state) and not report.kept and not report.unused
    assert f"{len(state)} of {len(state)} tensors loaded" in str(report)


def test_counters_may_be_missing():
    model = slim()
    state = {name: x for name, x in noise(model).items() if not name.endswith("num_batches_tracked")}
    report = load_reference(model, state)
    assert equal(model, state) and len(report.kept) == 12 and report.kept[0].endswith("num_batches_tracked")


def renamed(state):
    return {name.replace("rpn_cls", "rpn_klass"): x for name, x in state.items()}


def without(state):
    return {name: x for name, x in state.items() if "layer2" not in name}


def reshaped(state):
    return {name: x[:1] if name == "rpn_head.rpn_cls.weight" else x for name, x in state.items()}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (renamed, "2 tensors missing .*rpn_head.rpn_cls.weight.*2 tensors unknown .*rpn_klass"),
        (without, "tensors missing .*backbone.layer2"),
        (reshaped, r"1 tensor of another shape .*rpn_cls.weight: \(1, 64, 1, 1\), expected \(3, 64, 1, 1\)"),
    ],
)
def test_a_wrong_checkpoint_is_one_line_and_changes_nothing(model, spoil, says):
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(UserError, match=says) as caught:
        load_reference(model, {"state_dict": spoil(noise(model))})
    assert "\n" not in str(caught.value)
    assert equal(model, before)


def test_another_family_is_refused(model):
    with pytest.raises(UserError, match="not the weights of this model"):
        load_reference(model, noise(slim("cascade-rcnn-r18-nwdrka")))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such checkpoint"),
        (b"", "an empty file"),
        (b"not a checkpoint", "text that begins with"),
        (pickle.dumps(print), "a bare pickle, which is code"),
    ],
)
def test_unreadable_files_are_one_line(model, content, says, tmp_path):
    path = tmp_path / "their.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        load_reference(model, path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"state_dict": {"a": 1}}, [torch.zeros(1)]])
def test_files_without_a_state_dict(model, content, tmp_path):
    torch.save(content, tmp_path / "their.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        load_reference(model, tmp_path / "their.pth")


def test_backbone_weights_with_a_classifier(tmp_path):
    backbone = ResNet(10)
    state = noise(backbone)
    torch.save({**state, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}, tmp_path / "resnet.pth")
    report = load_backbone(backbone, tmp_path / "resnet.pth")
    assert equal(backbone, state) and report.unused == ("fc.weight", "fc.bias")
    built = slim(**{"backbone.weights": str(tmp_path / "resnet.pth")})
    assert equal(built.backbone, state)


def test_backbone_out_of_a_detector(model):
    backbone = ResNet(10)
    load_backbone(backbone, {"state_dict": model.state_dict()})
    assert equal(backbone, model.backbone.state_dict())


def test_backbone_parts_that_no_imagenet_network_has():
    backbone = ResNet(10)
    backbone.extra = torch.nn.Linear(2, 2)
    state = {name: x for name, x in noise(backbone).items() if "extra" not in name}
    with pytest.raises(UserError, match="2 tensors missing"):
        load_backbone(backbone, state)
    backbone.not_pretrained = ("extra",)
    assert load_backbone(backbone, state).kept == ("extra.weight", "extra.bias")


def test_weights_of_another_depth_are_refused():
    with pytest.raises(UserError, match=r"unknown .*layer1\.1"):
        load_backbone(ResNet(10), ResNet(18).state_dict())


def test_model_loads_the_authors_checkpoint(tmp_path):
    model = Model("faster-rcnn-r18.yaml", overrides={"backbone.depth": 10})
    state = noise(model.model)
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "their.pth")
    assert equal(model.load(tmp_path / "their.pth").model, state)
    with pytest.raises(UserError, match="not the weights of this model"):
        Model("retinanet-r18-nwdrka.yaml").load(tmp_path / "their.pth")


class TestImageNetFiles:
    """Files named by their digest, as torchvision names them."""

    @pytest.fixture
    def known(self, tmp_path):
        """Two files and what they are."""
        found = {}
        for version in ("V1", "V2"):
            digest = hashlib.sha256(version.encode()).hexdigest()[:8]
            (tmp_path / f"net-{digest}.pth").write_bytes(version.encode())
            found[f"net-{digest}.pth"] = f"Net_Weights.IMAGENET1K_{version}"
        return found

    def test_the_first_version_needs_no_word_and_the_second_gets_one(self, tmp_path, known):
        first, second = known
        assert imagenet_note(tmp_path / first, known) == ""
        assert imagenet_note(tmp_path / second, known) == (
            f"{tmp_path / second}: these are Net_Weights.IMAGENET1K_V2; "
            f"the published figures start from IMAGENET1K_V1, {first}"
        )

    def test_it_is_known_under_another_name(self, tmp_path, known):
        path = (tmp_path / list(known)[1]).rename(tmp_path / "resnet.pth")
        assert "IMAGENET1K_V2" in imagenet_note(path, known)

    def test_a_file_that_is_not_what_its_name_says_is_refused(self, tmp_path, known):
        first, second = known
        (tmp_path / first).write_bytes(b"V2")
        digits = first[4:12], second[4:12]
        with pytest.raises(
            UserError, match=f"{first}: damaged or another file: .*{digits[0]}, it begins with {digits[1]}"
        ):
            imagenet_note(tmp_path / first, known)

    def test_names_with_digits_of_others_are_no_digests(self, tmp_path, known):
        (tmp_path / "run-20241125.pth").write_bytes(b"mine")
        assert imagenet_note(tmp_path / "run-20241125.pth", known) == ""

    def test_the_files_of_the_published_models(self):
        known = _torchvision_files()
        assert known["resnet50-0676ba61.pth"].endswith("ResNet50_Weights.IMAGENET1K_V1")
        assert known["resnet101-63fe2227.pth"].endswith("ResNet101_Weights.IMAGENET1K_V1")
        assert known["resnet50-11ad3fa6.pth"].endswith("ResNet50_Weights.IMAGENET1K_V2")

    def test_a_model_tells_it_where_it_has_published_figures(self, tmp_path, monkeypatch, capsys):
        torch.save(ResNet(10).state_dict(), tmp_path / "their.pth")
        digest = hashlib.sha256((tmp_path / "their.pth").read_bytes()).hexdigest()[:8]
        known = {f"resnet10-{digest}.pth": "ResNet10_Weights.IMAGENET1K_V2"}
        monkeypatch.setattr("tinyyolo.detectors.weights._torchvision_files", lambda: known)
        weights = {"backbone.weights": str(tmp_path / "their.pth")}
        slim(**weights)
        assert not capsys.readouterr().out
        build_model({**load_model_yaml("faster-rcnn-r18", {"backbone.depth": 10, **weights}), "published": {"AP": 1.0}})
        assert "the published figures start from IMAGENET1K_V1" in capsys.readouterr().out
