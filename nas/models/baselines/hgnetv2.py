"""HGNetV2, the backbone of D-FINE and of the small DEIMv2, as a configuration of `transformers` (Apache-2.0)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stages:
    """Widths of the stem, and of each stage the inner and outer width, the blocks and the kernel; layers of a block;
    whether activations are scaled and shifted by learned scalars. The first two stages have plain blocks, later ones light."""

    stem: tuple[int, int]
    inner: tuple[int, ...]
    outer: tuple[int, ...]
    blocks: tuple[int, ...]
    layers: int
    kernels: tuple[int, ...] = (3, 3, 5, 5)
    affine: bool = True


#: Repositories D-FINE (B0 to B5) and DEIMv2 (atto, femto, pico).
SIZES = {
    "atto": Stages((16, 16), (16, 32, 64), (64, 256, 256), (1, 1, 1), 3, (3, 3, 3)),
    "femto": Stages((16, 16), (16, 32, 64), (64, 256, 512), (1, 1, 1), 3, (3, 3, 5)),
    "pico": Stages((16, 16), (16, 32, 64), (64, 256, 512), (1, 1, 2), 3, (3, 3, 5)),
    "b0": Stages((16, 16), (16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3),
    "b2": Stages((24, 32), (32, 64, 128, 256), (96, 384, 768, 1536), (1, 1, 3, 1), 4),
    "b4": Stages((32, 48), (48, 96, 192, 384), (128, 512, 1024, 2048), (1, 1, 3, 1), 6, affine=False),
    "b5": Stages((32, 64), (64, 128, 256, 512), (128, 512, 1024, 2048), (1, 2, 5, 2), 6, affine=False),
}


def settings(name: str, levels: int) -> dict[str, object]:
    """The keywords of `HGNetV2Config` for a size whose last `levels` stages are read."""
    size = SIZES[name]
    count = len(size.outer)
    return {
        "stem_channels": [3, *size.stem],
        "stage_in_channels": [size.stem[1], *size.outer[:-1]],
        "stage_mid_channels": list(size.inner),
        "stage_out_channels": list(size.outer),
        "hidden_sizes": list(size.outer),
        "depths": list(size.blocks),
        "stage_num_blocks": list(size.blocks),
        "stage_numb_of_layers": [size.layers] * count,
        "stage_kernel_size": list(size.kernels),
        "stage_downsample": [False, *[True] * (count - 1)],
        "stage_light_block": [stage > 1 for stage in range(count)],
        "use_learnable_affine_block": size.affine,
        "out_indices": list(range(count - levels + 1, count + 1)),
    }
