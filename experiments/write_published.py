"""Writes `search_spaces/published/*.yaml` from official structure lists: `python -m experiments.write_published FILE`.

FILE is a JSON document whose `records` hold `id`, `structure` (the official block list) and `published` (figures).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.command import run
from experiments.evidence import read_record
from nas.errors import UserError
from nas.files import save_spec
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Spec
from search_spaces import find_space
from search_spaces.c3k2 import BACKBONES as C3K2
from search_spaces.gelan import BACKBONES as GELANS
from search_spaces.official import deployed, from_official
from search_spaces.published import FOLDER

DAMO_YOLO = "DAMO-YOLO v0.3.1, arXiv 2211.15444"
DEEPMAD = "DeepMAD, arXiv 2303.02165, TinyNAS release of August 2023"
YOLOV9 = "YOLOv9, arXiv 2402.13616"
YOLO11 = "YOLO11, Ultralytics 2024"
MAE_DET = "MAE-DET, arXiv 2111.13336, TinyNAS release of August 2023"

#: record id -> (our name, source, the space whose limits it is judged by)
BACKBONES = {
    "tinynas_L20_k1kx": ("tinynas_l20_k1kx", DAMO_YOLO, "official_tiny"),
    "tinynas_L25_k1kx": ("tinynas_l25_k1kx", DAMO_YOLO, "official_small"),
    "tinynas_L35_kxkx": ("tinynas_l35_kxkx", DAMO_YOLO, "official_medium"),
    "tinynas_L45_kxkx": ("tinynas_l45_kxkx", DAMO_YOLO, "official_medium"),
    "tinynas_nano_small": ("tinynas_nano_small", DAMO_YOLO, "official_tiny"),
    "tinynas_nano_middle": ("tinynas_nano_middle", DAMO_YOLO, "official_tiny"),
    "tinynas_nano_large": ("tinynas_nano_large", DAMO_YOLO, "official_tiny"),
    "tinynas_L20_k1kx_nano": ("tinynas_l20_k1kx_nano", DAMO_YOLO, "official_tiny"),
    "maedet_s": ("mae-det-s", MAE_DET, "official_r50_detection"),
    "maedet_m": ("mae-det-m", MAE_DET, "official_r50_detection"),
    "maedet_l": ("mae-det-l", MAE_DET, "official_r50_detection"),
    "deepmad-R18": ("deepmad-r18", DEEPMAD, "official_r50"),
    "deepmad-R34": ("deepmad-r34", DEEPMAD, "official_r50"),
    "deepmad-R50": ("deepmad-r50", DEEPMAD, "official_r50"),
    "deepmad-29M-224": ("deepmad-29m-224", DEEPMAD, "official_29m_224"),
    "deepmad-29M-288": ("deepmad-29m-288", DEEPMAD, "official_29m_288"),
    "deepmad-50M": ("deepmad-50m", DEEPMAD, "official_50m"),
    "deepmad-89M": ("deepmad-89m", DEEPMAD, "official_89m"),
}

#: size -> (searched backbone, family, Focus stem, neck fields that differ from the spec's defaults)
DETECTORS: dict[str, tuple[str, str, bool, dict[str, Any]]] = {
    "t": ("tinynas_l20_k1kx", "res", True, {"out": (64, 128, 256), "hidden_ratio": (1.0, 1.0, 1.0)}),
    "s": ("tinynas_l25_k1kx", "res", True, {}),
    "m": ("tinynas_l35_kxkx", "csp", True, {"depth": 4, "hidden_ratio": (1.0, 1.0, 1.0), "activation": "silu"}),
    "l": ("tinynas_l45_kxkx", "csp", True, {"depth": 6, "hidden_ratio": (1.0, 1.0, 1.0), "activation": "silu"}),
    "ns": ("tinynas_nano_small", "mob", False, {}),
    "nm": ("tinynas_nano_middle", "mob", False, {}),
    "nl": ("tinynas_nano_large", "mob", False, {}),
    "n": ("tinynas_l20_k1kx_nano", "mob", True, {"out": (64, 128, 256)}),
}
NANO_NECK: dict[str, Any] = {"depth": 2, "hidden_ratio": (0.5, 0.5, 0.5), "activation": "silu", "depthwise": True}

#: COCO val AP (README), T4 TensorRT 10 FP16 ms (Ultralytics' comparison pages), millions of params, GFLOPs.
PUBLISHED: dict[str, dict[str, float]] = {
    "t": {"coco_ap": 42.0, "t4_tensorrt10_ms": 2.32, "params_m": 8.5, "flops_g": 18.1},
    "s": {"coco_ap": 46.0, "t4_tensorrt10_ms": 3.45, "params_m": 16.3, "flops_g": 37.8},
    "m": {"coco_ap": 49.2, "t4_tensorrt10_ms": 5.09, "params_m": 28.2, "flops_g": 61.8},
    "l": {"coco_ap": 50.8, "t4_tensorrt10_ms": 7.18, "params_m": 42.1, "flops_g": 97.3},
    "ns": {"coco_ap": 32.3, "params_m": 1.41, "flops_g": 1.56},
    "nm": {"coco_ap": 38.2, "params_m": 2.71, "flops_g": 3.69},
    "nl": {"coco_ap": 40.5, "params_m": 5.69, "flops_g": 6.04},
}


def detector_of(size: str, searched: Backbone) -> DetectorSpec:
    """The deployed DAMO-YOLO of that size around its searched backbone (official configurations)."""
    _, family, focus, neck = DETECTORS[size]
    backbone = deployed(searched, family, focus)  # type: ignore[arg-type]
    fields = (NANO_NECK if family == "mob" else {}) | {"out": backbone.out_channels} | neck
    nano = HeadSpec(reg_max=7, kernel=3 if size == "n" else 1)
    head, side = (nano, 416) if family == "mob" else (HeadSpec(), 640)
    return DetectorSpec(backbone, NeckSpec(**fields), head, side)


def write_published(source: str | Path, folder: Path = FOLDER) -> list[str]:
    """Write all files into `folder`; returns their names.

    A backbone is judged by the space of its search, a detector by its backbone as searched.
    """
    records = {record["id"]: record for record in read_record(Path(source))["records"]}
    searched: dict[str, tuple[Backbone, dict[str, Any], str]] = {}
    for identity, (name, source_text, space) in BACKBONES.items():
        record = records[identity]
        backbone = from_official(record["structure"])
        breaks = "; ".join(find_space(space).violations(backbone))
        provenance = {"source": source_text, "space": space}
        searched[name] = backbone, provenance, breaks
        figures = {"published": record["published"]} if record.get("published") else {}
        _write(folder, name, backbone, f"{identity}, backbone as searched", breaks, provenance | figures)
    for size, (name, family, _, _) in DETECTORS.items():
        backbone, provenance, breaks = searched[name]
        about = f"DAMO-YOLO {size.capitalize()}, whole detector as deployed"
        known = provenance | {"searched": name, "family": family, "published": PUBLISHED.get(size, {})}
        _write(folder, f"damo-yolo-{size}", detector_of(size, backbone), about, breaks, known)
    for space, source_text, drawn in (("gelan", YOLOV9, GELANS), ("c3k2", YOLO11, C3K2)):
        for name, backbone in drawn.items():
            about = f"{name.removesuffix('-backbone')}, backbone as drawn by hand, with its pyramid"
            _write(folder, name, backbone, about, "", {"source": source_text, "space": space})
    return [*searched, *(f"damo-yolo-{size}" for size in DETECTORS), *GELANS, *C3K2]


def _write(folder: Path, name: str, spec: Spec, about: str, breaks: str, provenance: dict[str, Any]) -> None:
    provenance = {key: value for key, value in provenance.items() if value}
    save_spec(folder / f"{name}.yaml", spec, name=name, description=about, breaks=breaks, provenance=provenance)


def main(words: list[str]) -> None:
    """Write them; raises UserError without a file."""
    if len(words) != 1:
        raise UserError("give one file: python -m experiments.write_published FILE")
    print("\n".join(write_published(words[0])))


if __name__ == "__main__":
    run(main)
