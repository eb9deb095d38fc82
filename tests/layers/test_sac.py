"""Convolutions of DetectoRS and the sampling under them, against plain formulas and torchvision's operations."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import ops

from tinyyolo.export.onnx import DEFORMABLE_OPSET, deform_conv
from tinyyolo.layers import gather
from tinyyolo.layers.deform_conv import deform_conv2d
from tinyyolo.layers.roi_align import roi_align
from tinyyolo.layers.sac import ConvAWS2d, Memo, SAConv2d, bordered, infers

SIDES = {"square": (9, 9), "wide": (5, 12), "smallest": (3, 3)}


def randomised(layer, seed=0):
    """All parameters and buffers drawn; weights scaled by fan-in."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for x in (*layer.parameters(), *layer.buffers()):
            x.copy_(torch.randn(x.shape, generator=generator) / max(1, x[0].numel()) ** 0.5)
    return layer


def plain_sac(layer, x):
    """The formula of SAConv2d with torchvision's deformable convolution."""
    x = x + layer.pre_context(F.adaptive_avg_pool2d(x, 1))
    pooled = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 5, stride=1)
    switch, weight = layer.switch(pooled), layer.standardised()
    near = ops.deform_conv2d(x, layer.offset_s(pooled), weight, None, layer.stride, 1, 1)
    far = ops.deform_conv2d(x, layer.offset_l(pooled), weight + layer.weight_diff, None, layer.stride, 3, 3)
    out = switch * near + (1 - switch) * far
    return out + layer.post_context(F.adaptive_avg_pool2d(out, 1))


def gradients(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), leaves)]


def test_standardised_weight():
    conv = randomised(ConvAWS2d(4, 3, kernel=3))
    for i, w in enumerate(conv.weight.detach().double().numpy()):
        expected = (w - w.mean()) / (w.var(ddof=1) + 1e-5) ** 0.5
        expected = conv.weight_gamma[i].item() * expected + conv.weight_beta[i].item()
        torch.testing.assert_close(conv.standardised()[i].double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [ConvAWS2d(4, 6, 3, stride=2), SAConv2d(4, 6, stride=2)], ids=["aws", "sac"])
def test_new_layer_is_a_plain_convolution(layer):
    x = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, stride=2, padding=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("stride", [1, 2])
def test_switchable_convolution_is_its_formula(side, stride):
    layer = randomised(SAConv2d(4, 6, stride))
    x = torch.randn(2, 4, *SIDES[side], generator=torch.Generator().manual_seed(1))
    names = [name for name, _ in layer.named_parameters()]
    found, expected = {}, {}
    for into, function in ((found, layer), (expected, lambda v: plain_sac(layer, v))):
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        y = function(leaf)
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
        into.update({"y": y.detach(), "x": leaf.grad})
        into.update({name: p.grad.clone() for name, p in layer.named_parameters()})
    assert set(found) == {"y", "x", *names}
    for name, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(found[name], value, atol=2e-5 * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_border_of_a_small_map():
    """Two lines are reflected again and again, a single cell is repeated; three columns as torch reflects them."""
    first, second = [3, 2, 1, 2, 3, 2, 1], [6, 5, 4, 5, 6, 5, 4]
    assert bordered(torch.tensor([[[[1, 2, 3], [4, 5, 6]]]]), 2)[0, 0].tolist() == [first, second] * 3
    assert bordered(torch.tensor([[[[7]]]]), 2)[0, 0].tolist() == [[7] * 5] * 5


@pytest.mark.parametrize("fast", [False, True])
def test_switchable_convolution_of_a_single_cell(fast):
    """A 32 px image at stride 32. 2 + .5 * 2 = 3; .75 * (3 * 3) + .25 * (4 * 3) = 9.75; 9.75 + 9.75 + .25 = 19.75."""
    layer, centre = SAConv2d(1, 1).eval(), (0, 0, 1, 1)
    with torch.no_grad():
        layer.weight.zero_()[centre] = 3
        layer.weight_diff[centre] = 1
        layer.reset_standardisation()
        layer.pre_context.weight.fill_(0.5)
        layer.switch.weight.fill_(0.25)
        layer.switch.bias.zero_()
        layer.post_context.weight.fill_(1)
        layer.post_context.bias.fill_(0.25)
    with torch.set_grad_enabled(not fast):
        x = torch.full((1, 1, 1, 1), 2.0)
        torch.testing.assert_close(layer(x), torch.full_like(x, 19.75))


def test_graph_of_a_switchable_convolution_takes_maps_of_any_size(tmp_path):
    """Recorded on 5x6 cells; a graph has one path for all sizes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.onnx.utils.register_custom_op_symbolic("torchvision::deform_conv2d", deform_conv, DEFORMABLE_OPSET)
    layer, path = randomised(SAConv2d(4, 6)).eval(), tmp_path / "layer.onnx"
    x = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the recorder
        free = {"x": {0: "batch", 2: "height", 3: "width"}}
        options = {"opset_version": DEFORMABLE_OPSET, "input_names": ["x"], "dynamic_axes": free, "dynamo": False}
        torch.onnx.export(layer, (x,), path, **options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for height, width in ((5, 6), (3, 4), (2, 3), (1, 2), (1, 1)):
        part = x[:, :, :height, :width].contiguous()
        with torch.no_grad():
            expected = layer(part)
        found = torch.from_numpy(session.run(None, {"x": part.numpy()})[0])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [ConvAWS2d(4, 6, 3), SAConv2d(4, 6)], ids=["aws", "sac"])
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.weight[:, 0].mul_(-2),
        lambda m: m.weight_beta.add_(1),
        lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
        lambda m: m.double().float().weight[:, 0].mul_(-2),
        lambda m: [v.mul_(0.5) for v in m.state_dict().values()],  # an EMA update of a model that stays in eval mode
    ],
    ids=["weight", "buffer", "load", "type", "ema"],
)
def test_weight_is_standardised_once_until_it_changes(layer, change, monkeypatch):
    layer = randomised(copy.deepcopy(layer)).eval()
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    calls, compute = [], type(layer).standardised
    monkeypatch.setattr(ConvAWS2d, "standardised", lambda self: calls.append(1) or compute(self))
    with torch.no_grad():
        first = [layer(x) for _ in range(3)]
        assert len(calls) == 1
        change(layer)
        second = layer(x)
    assert len(calls) == 2
    assert not torch.allclose(first[0], second)
    torch.testing.assert_close(second, copy.deepcopy(layer).train()(x), atol=1e-5, rtol=1e-5)


def test_memo_keeps_nothing_that_gradients_need():
    layer = randomised(SAConv2d(4, 4)).eval()
    x = torch.randn(1, 4, 6, 6)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0 and layer.weight_diff.grad.abs().sum() > 0
    memo = layer.memo
    assert memo.value is not None
    assert layer.train().memo.value is None
    with torch.inference_mode():
        made_there = torch.ones(1)
        counted = []
        for _ in range(2):
            Memo().get((made_there,), lambda: counted.append(1))
    assert len(counted) == 2


def test_checkpoint_without_statistics_starts_as_its_weight():
    model = nn.Sequential(randomised(ConvAWS2d(4, 6, 3)), nn.BatchNorm2d(6))
    state = {k: v for k, v in model.state_dict().items() if "weight_" not in k}
    state["0.weight"] = torch.randn(6, 4, 3, 3)
    model.load_state_dict(state)  # strict
    torch.testing.assert_close(model[0].standardised(), state["0.weight"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk_bytes", [1, gather.CHUNK_BYTES])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [((1, 1), (1, 1), (1, 1)), ((2, 1), (3, 0), (3, 2)), ((1, 2), (0, 0), (1, 1))]
)
def test_deformable_convolution_is_torchvisions(stride, padding, dilation, chunk_bytes, monkeypatch):
    monkeypatch.setattr(gather, "CHUNK_BYTES", chunk_bytes)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 9, generator=generator)
    weight = torch.randn(5, 3, 3, 3, generator=generator)
    size = [(n + 2 * p - 2 * d - 1) // s + 1 for n, s, p, d in zip((8, 9), stride, padding, dilation, strict=True)]
    offset = 4 * torch.randn(2, 18, *size, generator=generator)  # many beyond the map
    offset[:, :, 0] = offset[:, :, 0].round()  # cell centres exactly
    found = gradients(lambda *a: deform_conv2d(*a, stride, padding, dilation), x, offset, weight)
    expected = gradients(lambda *a: ops.deform_conv2d(*a, None, stride, padding, dilation), x, offset, weight)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        keep = slice(1, None) if i == 2 else slice(None)  # at a cell's centre the slope has two values
        torch.testing.assert_close(a[:, :, keep], b[:, :, keep], atol=1e-4, rtol=1e-4)


def test_deformable_convolution_adds_in_torchvisions_order():
    generator = torch.Generator().manual_seed(0)
    x, offset = (torch.randn(1, c, 16, 16, generator=generator) for c in (64, 18))
    weight = torch.randn(32, 64, 3, 3, generator=generator)
    found = deform_conv2d(x, offset, weight, padding=(1, 1))
    torch.testing.assert_close(found, ops.deform_conv2d(x, offset, weight, None, 1, 1), atol=0, rtol=0)
    assert found.is_contiguous()


def test_deformable_convolution_gradients_in_double():
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 2, 4, 4), (1, 18, 4, 4), (2, 2, 3, 3))
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    assert torch.autograd.gradcheck(lambda *a: deform_conv2d(*a, padding=(1, 1)), inputs)


@pytest.mark.parametrize("taps_first", [False, True])
def test_an_offset_that_is_no_number_gives_none(taps_first):
    """One tap of one output: a training that diverges is told by its loss."""
    offset = torch.zeros(1, 18, 4, 4)
    offset[0, 3, 1, 2] = math.nan
    found = deform_conv2d(torch.ones(1, 2, 4, 4), offset, torch.ones(1, 2, 3, 3), padding=(1, 1), taps_first=taps_first)
    assert found[0, 0].isnan().nonzero().tolist() == [[1, 2]]


def test_no_images():
    assert deform_conv2d(torch.zeros(0, 2, 5, 5), torch.zeros(0, 18, 5, 5), torch.zeros(4, 2, 3, 3)).shape == (
        0,
        4,
        5,
        5,
    )


ROIS = {
    "tiny": [[0, 10.2, 8.1, 13.9, 12.0], [1, 0, 0, 4, 4]],
    "many samples": [[0, 0, 0, 120, 100], [1, 3.3, 20, 90, 31]],
    "beyond the image": [[0, -30, -20, 20, 9], [1, 100, 60, 190, 140], [0, -90, -90, -40, -40]],
    "no area": [[0, 5, 5, 5, 9], [1, 9, 9, 3, 2]],
    "exact bins": [[0, 0, 0, 28, 56], [1, 28, 28, 56, 84]],
    "none": [],
}


@pytest.mark.parametrize("case", ROIS)
@pytest.mark.parametrize("size", [2, 7])
def test_roi_align_is_torchvisions(case, size):
    x = torch.randn(2, 3, 25, 30, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor(ROIS[case], dtype=torch.float32).view(-1, 5)
    found = gradients(lambda v: roi_align(v, rois, size, 0.25), x)
    expected = gradients(lambda v: ops.roi_align(v, rois, size, 0.25, 0, True), x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_roi_align_mixed_regions_keep_their_order():
    rois = torch.tensor([roi for case in ("many samples", "tiny", "no area", "beyond the image") for roi in ROIS[case]])
    x = torch.randn(2, 3, 25, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(roi_align(x, rois, 7, 0.25), ops.roi_align(x, rois, 7, 0.25, 0, True))


def test_autocast_keeps_sampling_in_float32():
    layer = randomised(SAConv2d(8, 8)).eval()
    x = torch.randn(1, 8, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        under = layer(x)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, layer(x), atol=1e-4, rtol=1e-4)  # far off in bfloat16
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(leaf).sum().backward()
    found, layer.weight.grad = layer.weight.grad, None
    layer(x).sum().backward()
    torch.testing.assert_close(found, layer.weight.grad)
    rois = torch.tensor([[0, 601.3, 599.2, 607.9, 605.0]])
    big = torch.randn(1, 2, 200, 200)
    pooled = roi_align(big.bfloat16(), rois, 7, 0.25)
    expected = roi_align(big, rois, 7, 0.25)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.float(), expected, atol=0.05, rtol=0)


def test_trace_of_a_switchable_convolution(tmp_path):
    layer = randomised(SAConv2d(4, 6, stride=2)).eval()
    x, other = torch.randn(2, 1, 4, 9, 8)
    with torch.no_grad():
        torch.jit.trace(layer, x).save(tmp_path / "layer.pt")
        loaded = torch.jit.load(tmp_path / "layer.pt")
        torch.testing.assert_close(loaded(other), layer(other))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layer", ["ConvAWS2d", "SAConv2d"])
def test_inference_in_fewer_passes(layer, stride):
    """A channels-last map without gradients takes another order of sums, with batch norm folded in."""
    torch.manual_seed(0)
    conv = SAConv2d(8, 6, stride) if layer == "SAConv2d" else ConvAWS2d(8, 6, 3, stride)
    norm = nn.BatchNorm2d(6)
    for tensor in (*conv.parameters(), norm.weight, norm.bias, norm.running_mean):
        tensor.data.normal_().mul_(0.5)
    norm.running_var.uniform_(0.5, 2)
    conv.eval(), norm.eval()
    x = torch.randn(2, 8, 9, 11)
    fast = x.contiguous(memory_format=torch.channels_last)
    for _ in range(2):  # the second time with weights that changed in place
        with torch.no_grad():
            expected = norm(conv(x))
            assert infers(fast) and not infers(x)
            torch.testing.assert_close(conv(fast, norm), expected, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(norm(conv(fast)), expected, atol=1e-4, rtol=1e-4)
            conv.weight.mul_(1.5)
            norm.bias.add_(1)


@pytest.mark.parametrize("dilation", [1, 3])
def test_deformable_inference_off_the_map(dilation):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 7, 9), torch.randn(5, 4, 3, 3)
    offset = 6 * torch.randn(2, 18, 4, 5)
    settings = ((2, 2), (dilation, dilation), (dilation, dilation))
    expected = ops.deform_conv2d(x, offset, weight, None, *settings)
    fast = deform_conv2d(x.contiguous(memory_format=torch.channels_last), offset, weight, *settings, taps_first=True)
    torch.testing.assert_close(fast, expected, atol=1e-4, rtol=1e-4)


def test_slope_of_a_deformable_convolution_at_the_border():
    """A tap just off the map sees 0, and the first cell if it moves in; so a new layer's offsets learn at the border.

    Over 3 cells of 1, 2, 4 the outputs see the cells -1, 0 and 1 with their first tap, 0 to 2 with the second and 1 to
    3 with the third; the slope of a sample is the right cell less the left one, and past the last cell 0.
    """
    x, weight = torch.tensor([[[[1.0, 2, 4]]]]), torch.ones(1, 1, 1, 3)
    offset = torch.zeros(1, 6, 1, 3, requires_grad=True)
    deform_conv2d(x, offset, weight, padding=(0, 1)).sum().backward()
    assert offset.grad[0, 1::2, 0].tolist() == [[1, 1, 2], [1, 2, -4], [2, -4, 0]]
