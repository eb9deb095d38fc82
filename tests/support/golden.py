"""Detectors beside outputs of the authors' code: weights filled from their names, and what must be equal how far."""

import zlib

import numpy as np
import torch

FEATURES, BOXES, SCORES, LOSSES, GRADIENTS = 1e-5, 1e-3, 1e-5, 1e-5, 1e-3


def filled(state):
    """Name -> tensor with values drawn from the name: scaled by fan-in, norms near 1, biases small."""
    out = {}
    for name, tensor in state.items():
        shape, leaf = tuple(tensor.shape), name.rpartition(".")[2]
        z = np.asarray(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape))
        if leaf == "num_batches_tracked":
            z = np.zeros(())
        elif leaf == "running_var":
            z = 1 + 0.1 * abs(z)
        elif leaf == "running_mean":
            z = 0.1 * z
        elif len(shape) > 1:
            z = z / np.sqrt(np.prod(shape[1:]))
        else:
            z = 0.05 * z if leaf == "bias" else 1 + 0.1 * z
        out[name] = torch.from_numpy(np.asarray(z, np.float32)).to(tensor.dtype)
    return out


def ours(name):
    """Our name of a loss from the authors': 'loss_rpn_bbox' -> 'rpn_box', 's1.loss_cls' -> 'roi1_cls'.

    Examples:
        >>> ours("loss_rpn_bbox"), ours("loss_cls"), ours("s1.loss_bbox")
        ('rpn_box', 'roi_cls', 'roi1_box')
    """
    stage, _, kind = name.removeprefix("loss_").rpartition("loss_")
    kind = kind.replace("bbox", "box")
    return kind if kind.startswith("rpn") else f"roi{stage.strip('s.')}_{kind}"


def check(found, golden, name):
    flat = found.flatten().double().numpy()
    assert list(found.shape) == golden["shape"], name
    bound = FEATURES * golden["max"]
    np.testing.assert_allclose(flat[golden["at"]], golden["values"], atol=bound, rtol=0, err_msg=name)
    np.testing.assert_allclose(flat.mean(), golden["mean"], atol=bound, rtol=0, err_msg=name)
    np.testing.assert_allclose(np.sqrt((flat**2).mean()), golden["rms"], atol=bound, rtol=0, err_msg=name)
    np.testing.assert_allclose(abs(flat).max(), golden["max"], atol=bound, rtol=0, err_msg=name)


def assert_names(detector, golden):
    """Names, shapes, number of parameters, and which of them do not learn."""
    lines = "\n".join(f"{key} {list(value.shape)}" for key, value in sorted(detector.state_dict().items()))
    assert len(detector.state_dict()) == golden["tensors"]
    assert zlib.crc32(lines.encode()) == golden["crc32"]
    assert sum(p.numel() for p in detector.parameters()) == golden["parameters"]
    frozen = sorted(key for key, p in detector.named_parameters() if not p.requires_grad)
    assert len(frozen) == golden["without_gradient"]
    assert zlib.crc32("\n".join(frozen).encode()) == golden["no_grad_crc32"]


def assert_detections(found, golden):
    """Of one image: as many of each of 8 classes, the first two of each, and the sum of all boxes and scores."""
    ((boxes, scores, labels),) = found
    rows = torch.cat([boxes, scores[:, None]], 1).double().numpy()
    assert [int((labels == c).sum()) for c in range(8)] == [g["count"] for g in golden]
    for c, expected in enumerate(golden):
        own = rows[(labels == c).numpy()]
        np.testing.assert_allclose(own[:2, :4], np.array(expected["first"])[:, :4], atol=BOXES, rtol=0)
        np.testing.assert_allclose(own[:2, 4], np.array(expected["first"])[:, 4], atol=SCORES, rtol=0)
        np.testing.assert_allclose(own.sum(), expected["sum"], rtol=FEATURES)


def assert_learns(detector, losses, golden, named, rtol):
    """Losses within `rtol`, and the gradients' norms; `named` gives our name of a loss. Returns the norms."""
    expected = {named(name): value for name, value in golden["losses"].items()}
    assert set(losses) == set(expected)
    for name, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[name], rtol=rtol, err_msg=name)
    total = sum(losses.values())
    np.testing.assert_allclose(total.item(), golden["loss"], rtol=rtol)
    total.backward()
    norms = {name: p.grad.norm().item() for name, p in detector.named_parameters() if p.grad is not None}
    for name, value in golden["grad_norm"].items():
        np.testing.assert_allclose(norms[name], value, rtol=GRADIENTS, err_msg=name)
    np.testing.assert_allclose(np.linalg.norm(list(norms.values())), golden["grad_norm_total"], rtol=GRADIENTS)
    return norms


def assert_the_rest_is_frozen(detector):
    """What has no gradient is what does not learn."""
    without = {name for name, p in detector.named_parameters() if p.grad is None}
    assert without == {name for name, p in detector.named_parameters() if not p.requires_grad}
