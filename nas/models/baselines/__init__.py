"""Hand-drawn detectors, built from their published descriptions: what a searched backbone is compared with."""

from nas.models.baselines.catalog import BASELINES, build_baseline, canonical_name

__all__ = ["BASELINES", "build_baseline", "canonical_name"]
