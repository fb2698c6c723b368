"""What each primitive of torch is to an inference engine: the only table to extend when a module uses a new one."""

from __future__ import annotations

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
