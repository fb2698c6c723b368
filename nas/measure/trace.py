"""What a torch module is made of: the operations that an inference engine runs for it, and its numbers as torch runs it.

Nothing is computed and no weight is copied: a dispatch mode watches a pass of fake tensors and sees every primitive call,
loops and branches included, and `nas.lowering.fusion` turns the calls into kernels by the same rules as everywhere else.
The tables of primitives are the only thing to extend when a module uses a new one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nas.blocks.operation import Operation
from nas.cost.count import Counts
from nas.errors import UserError
from nas.lowering import Form
from nas.lowering.fusion import Node, Shape, fuse_graph, peak_values
from nas.spec import image_side

#: Primitives that rename memory or change its type; `expand` reads the same values again.
VIEWS = frozenset(
    "view _unsafe_view reshape unsqueeze squeeze alias detach expand contiguous clone _to_copy to lift_fresh view_as "
    "flatten unflatten _reshape_alias dropout native_dropout as_strided copy".split()
)

#: Primitives whose result does not depend on the values of their argument.
CONSTANTS = frozenset(
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty rand_like randn_like".split()
)

_POINTWISE = {
    "add": "add", "sub": "sub", "rsub": "sub", "mul": "mul", "div": "div", "neg": "neg", "abs": "abs", "pow": "pow",
    "sqrt": "sqrt", "rsqrt": "sqrt", "exp": "exp", "exp2": "exp", "log": "log", "log2": "log", "erf": "erf",
    "reciprocal": "div", "remainder": "div", "floor_divide": "div", "addcmul": "mul", "addcdiv": "div", "lerp": "mul",
    "sin": "exp", "cos": "exp", "floor": "clip", "round": "clip", "ceil": "clip", "sign": "clip",
    "clamp": "clip", "clamp_min": "clip", "clamp_max": "clip", "hardtanh": "clip", "maximum": "clip", "minimum": "clip",
    "where": "where", "masked_fill": "where", "logical_not": "compare", "logical_and": "compare", "logical_or": "compare",
    "bitwise_and": "compare", "bitwise_not": "compare", "bitwise_or": "compare", "isnan": "compare", "isinf": "compare",
    "eq": "compare", "ne": "compare", "lt": "compare", "le": "compare", "gt": "compare", "ge": "compare",
    "tanh": "tanh", "relu": "relu", "relu6": "relu", "silu": "silu", "sigmoid": "sigmoid", "gelu": "gelu",
    "hardswish": "hardswish", "hardsigmoid": "hard_sigmoid", "leaky_relu": "leaky_relu", "elu": "elu", "mish": "mish",
    "softplus": "softplus", "_prelu_kernel": "leaky_relu", "log_sigmoid_forward": "log", "logit": "log",
}  # fmt: skip

#: Primitive -> kind of the graph's node. Names without the trailing underscore of in-place forms.
KINDS: dict[str, str] = _POINTWISE | {
    "convolution": "conv", "mkldnn_convolution": "conv",
    "addmm": "product", "mm": "product", "bmm": "product", "baddbmm": "product", "matmul": "product", "linear": "product",
    "_scaled_dot_product_flash_attention_for_cpu": "attention", "_scaled_dot_product_flash_attention": "attention",
    "_scaled_dot_product_efficient_attention": "attention", "_scaled_dot_product_attention_math": "attention",
    "native_batch_norm": "batchnorm", "_native_batch_norm_legit": "batchnorm", "batch_norm": "batchnorm",
    "_native_batch_norm_legit_no_training": "batchnorm", "cudnn_batch_norm": "batchnorm",
    "native_layer_norm": "layernorm", "native_group_norm": "layernorm", "_fused_rms_norm": "layernorm",
    "max_pool2d_with_indices": "maxpool", "max_pool2d": "maxpool", "avg_pool2d": "avgpool",
    "_adaptive_avg_pool2d": "reduce", "mean": "reduce", "sum": "reduce", "amax": "reduce", "max": "reduce",
    "amin": "reduce", "min": "reduce", "argmax": "reduce", "prod": "reduce", "linalg_vector_norm": "reduce",
    "var": "reduce", "var_mean": "reduce", "std": "reduce", "any": "reduce", "all": "reduce", "cumsum": "reduce",
    "_softmax": "softmax", "softmax": "softmax", "_log_softmax": "softmax",
    "cat": "concat", "stack": "concat",
    "slice": "slice", "select": "slice", "narrow": "slice", "split": "split", "split_with_sizes": "split",
    "chunk": "split", "unbind": "split", "split_copy": "split",
    "t": "transpose", "transpose": "transpose", "permute": "transpose", "pixel_shuffle": "transpose",
    "pixel_unshuffle": "transpose", "channel_shuffle": "transpose", "flip": "transpose", "roll": "transpose",
    "upsample_nearest2d": "upsample", "_upsample_nearest_exact2d": "upsample", "upsample_bilinear2d": "upsample",
    "upsample_bicubic2d": "upsample", "_upsample_bilinear2d_aa": "upsample",
    "constant_pad_nd": "pad", "reflection_pad2d": "pad", "replication_pad2d": "pad", "repeat": "pad", "im2col": "pad",
    "grid_sampler_2d": "gridsample", "topk": "topk", "sort": "topk", "index": "gather", "index_select": "gather",
    "gather": "gather", "embedding": "gather", "scatter": "gather", "scatter_add": "gather", "index_put": "gather",
    "slice_scatter": "gather", "repeat_interleave": "gather",
}  # fmt: skip


def trace_operations(
    module: nn.Module,
    image_size: int | tuple[int, int] = 640,
    fuse: bool = True,
    allow_unknown: bool = False,
    channels: int = 3,
) -> tuple[Operation, ...]:
    """Kernels of `module` on one image (1, channels, H, W), in execution order.

    fuse: of a copy in deployed form (its own `fuse()` if it has one), so that parallel branches count as one
        convolution; without it the module counts as it stands. The module itself is never changed.
    allow_unknown: a primitive that has no price becomes a pointwise kernel instead of an error.
    Raises UserError that names the primitive, or what in the module stands against tracing.
    """
    return fuse_graph(*trace_graph(module, image_size, fuse, allow_unknown, channels))


def trace_peak_memory_mb(module: nn.Module, image_size: int | tuple[int, int] = 640, value_bytes: int = 2) -> float:
    """Megabytes (10^6) of activations that are alive at once in the deployed form at batch 1, by exact liveness."""
    return peak_values(*trace_graph(module, image_size)) * value_bytes / 1e6


def trace_graph(
    module: nn.Module,
    image_size: int | tuple[int, int] = 640,
    fuse: bool = True,
    allow_unknown: bool = False,
    channels: int = 3,
) -> tuple[list[Node], set[int]]:
    """The layers of a module as written, and the indices of those that it returns; arguments of `trace_operations`."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    recorder = _Recorder(allow_unknown)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        subject = _bare_copy(module).eval()
        merge = getattr(subject, "fuse", None)
        if fuse and callable(merge):
            merge()
        with torch.no_grad(), fake:
            _make_fake(subject)
            images = torch.empty(1, channels, height, width)
            recorder.follow(images)
            with recorder:
                outputs = subject(images)
    except UserError:
        raise
    except Exception as error:
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot trace {type(module).__name__} at {height}x{width}: {type(error).__name__}: {message[:200]}"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return recorder.graph(outputs)


def _bare_copy(module: nn.Module) -> nn.Module:
    """A deep copy whose parameters and buffers have shapes but no memory: milliseconds whatever the size."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(module, memo)


def _make_fake(module: nn.Module) -> None:
    """Let every parameter and buffer claim to live on the processor, so that modules may mix them with new tensors."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    stand_in = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if isinstance(tensor, nn.Parameter):
                        stand_in = nn.Parameter(stand_in, False)
                    held[name] = stand_in  # type: ignore[assignment]


class _Call(NamedTuple):
    """A primitive that was called: the kind of its node, its arguments, those that depend on the image, all tensors among
    them, and the shape of its first result."""

    kind: str
    args: tuple[Any, ...]
    inputs: list[Tensor]
    tensors: list[Tensor]
    shape: Shape


class _Recorder(TorchDispatchMode):
    """Collects the primitives that depend on the image; whatever does not is a constant and free."""

    def __init__(self, allow_unknown: bool) -> None:
        super().__init__()
        self.allow_unknown = allow_unknown
        self.nodes: list[Node] = []
        self._sources: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def follow(self, tensor: Tensor, node: int = -1) -> None:
        self._sources[id(tensor)] = node
        self._alive.append(tensor)

    def graph(self, outputs: Any) -> tuple[list[Node], set[int]]:
        """The nodes, and the indices of those whose values leave the module."""
        leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
        kept = {self._sources[id(leaf)] for leaf in leaves if id(leaf) in self._sources}
        if not kept:
            raise UserError("the module returns nothing that depends on the image")
        return self.nodes, kept

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return True  # modules check their own values; a pass without values takes every check as passed
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inputs = [tensor for tensor in tensors if id(tensor) in self._sources]
        name = func.overloadpacket.__name__.rstrip("_")
        if not inputs or name in CONSTANTS:
            return result
        produced = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if produced:
            kind = "reshape" if name in VIEWS else KINDS.get(name, "")
            node = self._record(name, _Call(kind, args, inputs, tensors, tuple(produced[0].shape)))
            for tensor in produced:
                self.follow(tensor, node)
        return result

    def _record(self, name: str, call: _Call) -> int:
        special: Callable[[_Call], int] | None = getattr(self, f"on_{call.kind}", None)
        if special is not None:
            return special(call)
        if not call.kind and not self.allow_unknown:
            raise UserError(
                f"no price for the primitive {name!r}; pass allow_unknown=True to count it as a pointwise kernel"
            )
        constant = _constant(call.inputs, call.tensors)
        return self._add(call.kind or "elementwise_unknown", call.inputs, call.shape, constant=constant)

    def _add(self, kind: str, inputs: Sequence[Tensor], shape: Shape, **more: Any) -> int:
        sources = tuple(self._sources[id(tensor)] for tensor in inputs)
        shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        self.nodes.append(Node(kind, sources, shapes, shape, **more))
        return len(self.nodes) - 1

    def _single(self, call: _Call, kind: str = "", shape: Shape = (), **more: Any) -> int:
        """A node that reads one tensor of the image's; of the call's own kind and shape unless told."""
        return self._add(kind or call.kind, call.inputs[:1], shape or call.shape, **more)

    # ------------------------------------------------------------------ primitives with arguments that count

    def on_conv(self, call: _Call) -> int:
        weight, bias, stride = call.args[1], call.args[2], tuple(call.args[3])
        kernel, transposed, groups = tuple(weight.shape[2:]), call.args[6], call.args[8]
        if len(set(kernel)) > 1 or len(set(stride)) > 1 or len(kernel) != 2:
            raise UserError(f"no price for a convolution of kernel {kernel} and stride {stride}: it must be square")
        if transposed:
            # Without overlap it is a 1x1 convolution to kernel^2 times the channels, rearranged.
            batch, _, height, width = call.inputs[0].shape
            wide = (batch, call.shape[1] * kernel[0] ** 2, height, width)
            node = self._single(call, shape=wide, groups=groups, bias=bias is not None)
            self.nodes.append(Node("reshape", (node,), (wide,), call.shape))
            return len(self.nodes) - 1
        return self._single(call, kernel=kernel[0], stride=stride[0], groups=groups, bias=bias is not None)

    def on_product(self, call: _Call) -> int:
        """Matrix products: a linear layer if one factor is a weight."""
        factors = [tensor for tensor in call.tensors if tensor.dim() >= 2][-2:]
        dynamic = [tensor for tensor in factors if id(tensor) in self._sources]
        if len(dynamic) == 2:
            return self._add("matmul", dynamic, call.shape)
        return self._add("linear", dynamic, call.shape, bias=len(call.tensors) > 2)

    def on_attention(self, call: _Call) -> int:
        query, key, value = call.args[:3]
        scores = (*query.shape[:-1], key.shape[-2])
        first = self._add("matmul", (query, key), scores)
        self.nodes.append(Node("softmax", (first,), (scores,), scores))
        self.nodes.append(
            Node("matmul", (first + 1, self._sources[id(value)]), (scores, tuple(value.shape)), call.shape)
        )
        return len(self.nodes) - 1

    def on_maxpool(self, call: _Call) -> int:
        kernel = max(call.args[1])
        stride = max(call.args[2]) if len(call.args) > 2 and len(call.args[2]) else kernel
        return self._single(call, kernel=kernel, stride=stride)

    on_avgpool = on_maxpool

    def on_reduce(self, call: _Call) -> int:
        source = call.inputs[0].shape
        pooled = len(source) == 4 and prod(call.shape) == source[0] * source[1] and source[2] * source[3] > 1
        spatial = pooled and (len(call.args) < 2 or sorted(d % 4 for d in _dims(call.args[1])) == [2, 3])
        return self._single(call, "globalpool" if spatial else "reduce")

    def on_slice(self, call: _Call) -> int:
        """A part of a tensor; a part of a part is one part, and all of it is a view."""
        source = self._sources[id(call.inputs[0])]
        if tuple(call.inputs[0].shape) == call.shape:
            return self._single(call, "reshape")
        if source >= 0 and self.nodes[source].kind == "slice":
            parent = self.nodes[source]
            self.nodes.append(Node("slice", parent.inputs, parent.in_shapes, call.shape))
            return len(self.nodes) - 1
        return self._single(call)

    def on_split(self, call: _Call) -> int:
        """One copy that cuts a tensor; every part is one of its outputs."""
        return self._single(call, shape=tuple(call.inputs[0].shape))

    def on_transpose(self, call: _Call) -> int:
        moved = [size for size in call.inputs[0].shape if size > 1] != [size for size in call.shape if size > 1]
        return self._add(
            "transpose" if moved or len(set(call.shape)) < len(call.shape) else "reshape", call.inputs[:1], call.shape
        )


def _dims(value: Any) -> Sequence[int]:
    return [value] if isinstance(value, int) else list(value)


def _constant(inputs: list[Tensor], tensors: list[Tensor]) -> int:
    """Elements of the one learnable constant that a pointwise primitive takes beside the image's tensors, 0 if none."""
    others = [tensor for tensor in tensors if not any(tensor is one for one in inputs)]
    return others[0].numel() if len(others) == 1 and isinstance(others[0], nn.Parameter) else 0


def count_module(module: nn.Module, form: Form = "folded", image_size: int | None = None) -> Counts:
    """Parameters, MACs and activations on one RGB image of `image_size` pixels (default: the module's own, else 640).

    MACs are those of convolutions, linear layers and matrix products; activations the sum of convolution outputs.
    form: "folded" counts a copy after its own `fuse()`, "merged" after its own `merge()`, "train" the module as it
    stands, with the branches that only training runs. The module is not changed. Raises UserError if it cannot run
    without values, or has no such form.
    """
    side = image_side(module, image_size)
    subject: Any = copy.deepcopy(module).to("meta").eval()
    if form == "merged":
        if not callable(getattr(subject, "merge", None)):
            raise UserError(
                f"the merged form of {type(module).__name__} is unknown, it has no merge(): ask for train or folded"
            )
        subject.merge()
    elif form == "folded" and callable(getattr(subject, "fuse", None)):
        subject.fuse()
    run = subject.predict_raw if form == "train" and getattr(subject, "auxiliary", None) else subject
    outputs = 0

    def add(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal outputs
        outputs += output[:1].numel()

    for layer in subject.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(add)
    try:
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            run(torch.zeros(1, 3, side, side))
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot count {type(module).__name__} at {side} pixels: {reason}") from None
    params = sum(parameter.numel() for parameter in subject.parameters())
    return Counts(params, counter.get_total_flops() // 2, outputs)


def onnx_parameters(path: str) -> int:
    """Numbers in the floating-point constants of an ONNX file."""
    import onnx

    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(prod(item.dims) for item in onnx.load(path).graph.initializer if item.data_type in floating)
