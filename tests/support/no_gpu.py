"""A GPU that is none: tensors that say they lie on cuda:0, whose numbers the CPU computes, and what a real one refuses.

What it sees, as torch's own dispatcher does: operations on tensors of two devices, draws by a generator of another
device, sums of products of whole numbers (cuBLAS has none), and each place where the CPU waits for a number or for a
size that depends on numbers. What it cannot see: kernels, their speed and memory, and the last bits of a GPU's sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

GPU = torch.device("cuda:0")
BETWEEN = ("_to_copy", "copy_", "_local_scalar_dense")  # go from one device to the other
PICKS = ("index", "index_put", "index_put_", "_index_put_impl_")  # take indices of the CPU
ALL_HERE = (
    "cat",
    "stack",
    "mm",
    "bmm",
    "addmm",
    "gather",
    "scatter",
    "index_select",
    "nms",
    "roi_align",
    "convolution",
)
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "dot", "mv", "addmv")
WIDE = ("convolution", "convolution_backward", "mm", "bmm", "addmm", "baddbmm")
HALVES = (torch.float16, torch.bfloat16)
# What makes the CPU wait for a device: a number, or a shape that depends on values.
WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
    "_unique2",
    "masked_select",
    "bincount",
    "nms",
)
SIZED = "output_size"  # of repeat_interleave, which waits without


class OnGPU(Tensor):
    """A tensor that says it lies on the GPU; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGPU:
        # To torch it is a tensor on meta: a guard of cuda would ask the driver.
        shape = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
        how = {"dispatch_device": True, "device_for_backend_keys": GPU}
        out = Tensor._make_subclass(cls, shape, held.requires_grad, **how)
        out.held = held
        return out

    def tolist(self) -> Any:
        """Torch has none for a tensor of a class of its own."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"on {GPU}: {self.held}"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: Any, size: Any, stride: Any) -> OnGPU:
        return OnGPU(inner["held"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


class Machine(TorchDispatchMode):
    """Within this context there is such a GPU; counts what the CPU waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {}, self.waits)


def dispatched(func: Any, args: Any, kwargs: dict[str, Any], waits: Counter[str] | None = None) -> Any:
    """What an operation gives, on the device where a real one would have it.

    Raises:
        RuntimeError: a real GPU would not take it.
    """
    name = func.overloadpacket.__name__
    if func is torch.ops.prim.device.default:
        return GPU
    given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    there = [value for value in given if isinstance(value, OnGPU)]
    asked = kwargs.get("device")
    if there and name not in BETWEEN:
        here = [v for v in given if not isinstance(v, OnGPU) and (v.dim() or name in ALL_HERE)]
        if name in PICKS:
            here = [v for v in (args[0], *args[2:3]) if isinstance(v, Tensor) and v.dim() and not isinstance(v, OnGPU)]
        if here:
            raise RuntimeError(f"{name}: tensors on cuda:0 and on the cpu, {[tuple(v.shape) for v in here]}")
        if name in PRODUCTS and not there[0].is_floating_point():
            raise RuntimeError(f"{name}: not implemented on cuda for {there[0].dtype}")
    on_gpu = bool(there) if asked is None else torch.device(asked).type == "cuda"
    if on_gpu and (chance := kwargs.get("generator")) is not None and chance.device.type != "cuda":
        raise RuntimeError(f"{name}: a generator of the {chance.device} draws on cuda:0")
    if waits is not None and there and waiting(name, args, kwargs, on_gpu):
        waits[name] += 1
    own = tree_map_only(OnGPU, lambda value: value.held, (args, kwargs))
    if asked is not None and on_gpu:
        own[1]["device"] = torch.device("cpu")
    found = calculated(func, *own) if name in WIDE else func(*own[0], **own[1])
    if not on_gpu:
        return found
    out = tree_map(lambda value: OnGPU(value) if isinstance(value, Tensor) else value, found)
    return return_and_correct_aliasing(func, args, kwargs, out) if there else out


def calculated(func: Any, args: Any, kwargs: Any) -> Any:
    """What a product of halves is: its sums are float32 on a GPU, and the CPU takes very long for halves."""
    halves = [v.dtype for v in tree_flatten(args)[0] if isinstance(v, Tensor) and v.dtype in HALVES]
    if not halves:
        return func(*args, **kwargs)
    found = func(*tree_map_only(Tensor, lambda value: value.float(), args), **kwargs)
    return tree_map_only(Tensor, lambda value: value.to(halves[0]), found)


def waiting(name: str, args: Any, kwargs: dict[str, Any], on_gpu: bool) -> bool:
    """Whether the CPU waits for the device."""
    if name in PICKS:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    unsized = name == "repeat_interleave" and kwargs.get(SIZED) is None
    return name in WAITS or unsized or (name == "_to_copy" and not on_gpu)


@contextmanager
def no_gpu() -> Iterator[Machine]:
    """Within this context torch says that it has a GPU, which is a `Machine`."""
    facts: dict[str, Any] = {"is_available": True, "device_count": 1, "current_device": 0, "is_initialized": True}
    facts |= {"_lazy_init": None, "get_device_capability": (8, 0), "is_bf16_supported": True, "synchronize": None}
    facts |= {"reset_peak_memory_stats": None, "max_memory_allocated": 0, "get_amp_supported_dtype": None}
    told = {name: patch(f"torch.cuda.{name}", lambda *_, value=value, **__: value) for name, value in facts.items()}
    told["get_amp_supported_dtype"] = patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    torch._C._ensureCUDADeviceGuardSet()  # these two as torch's own fake tensors do
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    with torch.backends.cudnn.flags(enabled=False), Machine() as machine:
        for one in told.values():
            one.start()
        try:
            yield machine
        finally:
            for one in told.values():
                one.stop()
            torch._C._set_only_lift_cpu_tensors(before)


def backward(loss: Tensor) -> None:
    """Fill `grad` of all leaves, as `loss.backward()` does, node by node: torch's engine would ask the driver."""
    root = loss.grad_fn
    waiting_for: Counter[Any] = Counter()
    todo, seen = [root], {root}
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None:
                waiting_for[node] += 1
                if node not in seen:
                    seen.add(node)
                    todo.append(node)
    given: dict[Any, dict[int, Tensor]] = {root: {0: torch.ones_like(loss)}}
    todo = [root]
    while todo:
        node = todo.pop()
        grads = given.pop(node, {})
        found = of_node(node, [grads.get(i) for i in range(len(node._input_metadata))]) if grads else ()
        for i, (after, place) in enumerate(node.next_functions):
            if after is None:
                continue
            if i < len(found) and found[i] is not None:
                own, meta = given.setdefault(after, {}), after._input_metadata[place]
                grad = found[i].sum_to_size(meta.shape).to(meta.dtype)  # as torch's engine does between two nodes
                own[place] = own[place] + grad if place in own else grad
            waiting_for[after] -= 1
            if not waiting_for[after]:
                todo.append(after)


def of_node(node: Any, grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The gradients of a node's inputs."""
    if hasattr(node, "variable"):  # a leaf
        (grad,) = grads
        leaf = node.variable
        leaf.grad = grad if leaf.grad is None else leaf.grad + grad
        return ()
    if isinstance(node, torch.autograd.function.BackwardCFunction):  # one of ours
        filled = [
            torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device) if grad is None else grad
            for grad, meta in zip(grads, node._input_metadata, strict=True)
        ]
        found = node.apply(*filled)
    else:
        found = node(*grads)
    return found if isinstance(found, tuple) else (found,)
