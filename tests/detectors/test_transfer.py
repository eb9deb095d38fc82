"""What a model takes of other weights: by name, class by class, by role; all of it counted."""

import pytest
import torch
from torch import nn

from tinyyolo.compat import C2f, Conv
from tinyyolo.config import UserError, load_model_yaml
from tinyyolo.detectors.build import build_model
from tinyyolo.detectors.transfer import Start, carry_over, units

SLIM = {
    "backbone.channels": [4, 8, 8, 8],
    "backbone.depths": [1, 1, 1],
    "neck.channels": [8, 8, 8],
    "head.hidden": [8, 8, 8],
}
LOGITS = "bbox_head.class_branch.0.1"


def slim(names=("car", "ship"), seed=0, **more):
    torch.manual_seed(seed)
    model = build_model(load_model_yaml("tinyyolo-n.yaml", {**SLIM, **more}), len(names))
    model.names = dict(enumerate(names))
    return model


def start_of(model, **more):
    return Start("theirs.pt", {name: x.clone() for name, x in model.state_dict().items()}, model.names, **more)


def test_the_same_model_takes_everything():
    theirs, ours = slim(seed=1), slim()
    report = carry_over(ours, start_of(theirs))
    total = len(ours.state_dict())
    assert str(report) == f"starts from theirs.pt: {total} of {total} tensors carried over"
    for name, x in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], x, rtol=0, atol=0, msg=name)


class TestClasses:
    def test_scores_go_where_the_name_is(self):
        """Three anchors a cell at the finest level: row a C + c, here 2 classes, there 3."""
        theirs, ours = slim(("Storage Tank", "ship", "car"), seed=1), slim(("plane", "storage-tank"))
        before = {name: x.clone() for name, x in ours.state_dict().items()}
        report = carry_over(ours, start_of(theirs))
        given, own = theirs.state_dict(), ours.state_dict()
        for leaf in ("weight", "bias"):
            there, here, built = (state[f"{LOGITS}.{leaf}"] for state in (given, own, before))
            assert len(there) == 9 and len(here) == 6
            for at, row in {1: 0, 3: 3, 5: 6}.items():  # storage-tank of anchors 0, 1, 2
                torch.testing.assert_close(here[at], there[row], rtol=0, atol=0)
            torch.testing.assert_close(here[[0, 2, 4]], built[[0, 2, 4]], rtol=0, atol=0)  # plane
        assert str(report).endswith("tensors carried over; scores of storage-tank by name, those of plane from scratch")
        assert len(report.loaded) == report.total and not report.other

    def test_no_name_in_common(self):
        theirs, ours = slim(("a", "b"), seed=1), slim(("c", "d"))
        before = ours.state_dict()[f"{LOGITS}.bias"].clone()
        report = carry_over(ours, start_of(theirs))
        assert torch.equal(ours.state_dict()[f"{LOGITS}.bias"], before)
        assert report.total - len(report.loaded) == 6  # a weight and a bias of three levels
        assert str(report).endswith("; no class by name, scores of c, d from scratch")

    def test_where_names_are_not_known_the_shape_decides(self):
        theirs, ours = slim(("a", "b"), seed=1), slim(("c", "d"))
        report = carry_over(ours, start_of(theirs)._replace(names=None))
        assert len(report.loaded) == report.total and not report.fresh

    def test_many_classes_are_not_all_named(self):
        report = carry_over(slim([f"class {i}" for i in range(40)]), start_of(slim()))
        assert "scores of class 0, class 1, class 2, class 3, class 4 and 35 more from scratch" in str(report)


class TestOtherShapes:
    def test_another_number_of_anchors_is_told(self):
        anchors = [[[6, 6]], [[22, 22], [32, 32]], [[48, 48], [72, 72], [110, 110]]]
        report = carry_over(slim(**{"head.anchors": anchors}), start_of(slim(seed=1)))
        assert report.total - len(report.loaded) == len(report.other) == 4  # scores and boxes of the finest level
        assert str(report).endswith(
            "4 from scratch, of another shape there (such as "
            "bbox_head.box_branch.0.1.weight (12, 8, 1, 1), here (4, 8, 1, 1))"
        )

    def test_anchors_of_other_sizes_keep_their_weights(self):
        """Boxes are relative to anchors."""
        anchors = [[[5, 5], [9, 9], [14, 14]], [[20, 20], [30, 30]], [[50, 50], [70, 70], [99, 99]]]
        report = carry_over(slim(**{"head.anchors": anchors}), start_of(slim(seed=1)))
        assert len(report.loaded) == report.total

    def test_what_the_file_lacks_is_told(self):
        start = start_of(slim(seed=1))
        state = {name: x for name, x in start.state.items() if not name.startswith("neck.")}
        report = carry_over(slim(), start._replace(state=state))
        assert report.absent and all(name.startswith("neck.") for name in report.absent)
        assert f"{len(report.absent)} from scratch, not in it (such as neck." in str(report)

    @pytest.mark.parametrize("foreign", [False, True])
    def test_nothing_in_common_is_refused(self, foreign):
        start = Start("theirs.pt", {"fc.weight": torch.zeros(3, 2)}, None, foreign)
        with pytest.raises(UserError, match=r"theirs\.pt: none of its 1 tensors fits this model"):
            carry_over(slim(), start)

    def test_ruined_weights_are_refused(self):
        start = start_of(slim(seed=1))
        start.state["backbone.stem.conv.weight"][0, 0, 0, 0] = float("nan")
        with pytest.raises(UserError, match=r"theirs\.pt: backbone\.stem\.conv\.weight would get values .*not finite"):
            carry_over(slim(), start)


class Theirs(nn.Module):
    """Another network of the same blocks: the body of `slim` but for a stem of 6x6 and a third stage that is wider."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            Conv(3, 4, 6, 2),
            Conv(4, 8, 3, 2),
            C2f(8, 8, 1, shortcut=True),
            Conv(8, 8, 3, 2),
            C2f(8, 8, 1, shortcut=True),
            Conv(8, 16, 3, 2),
            C2f(16, 16, 1, shortcut=True),
        )


class TestRoles:
    def test_layers_go_where_their_role_is(self):
        torch.manual_seed(1)
        theirs, ours = Theirs(), slim()
        before = {name: x.clone() for name, x in ours.state_dict().items()}
        report = carry_over(ours, Start("theirs.pt", theirs.state_dict(), None, foreign=True))
        given, own = theirs.state_dict(), ours.state_dict()
        stages = {"1": "0.0", "2": "0.1", "3": "1.0", "4": "1.1"}  # theirs -> ours, as they stand above
        expected = {
            f"backbone.stages.{here}.{name.split('.', 2)[2]}": x
            for there, here in stages.items()
            for name, x in given.items()
            if name.startswith(f"model.{there}.")
        }
        assert len(expected) == 60 and set(report.loaded) == set(expected) and report.by_role == 60
        for name, x in own.items():
            torch.testing.assert_close(x, expected.get(name, before[name]), rtol=0, atol=0, msg=name)
        assert "60 of them by role and shape" in str(report)

    def test_without_leave_only_names_count(self):
        with pytest.raises(UserError, match="none of its"):
            carry_over(slim(), Start("theirs.pt", Theirs().state_dict(), None))

    def test_a_convolution_never_goes_without_its_norm(self):
        state = {name: x for name, x in Theirs().state_dict().items() if ".bn." not in name}
        with pytest.raises(UserError, match="none of its"):
            carry_over(slim(), Start("theirs.pt", state, None, foreign=True))

    def test_the_order_of_a_file_sorted_by_name(self):
        names = [f"model.{i}.conv.weight" for i in (1, 10, 11, 2, 3)]
        assert [at for at, _ in units(dict.fromkeys(names))] == [f"model.{i}" for i in (1, 2, 3, 10, 11)]
