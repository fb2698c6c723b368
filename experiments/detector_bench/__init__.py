"""An open table of trained detectors with whole learning curves: `load()` gives its runs."""

from experiments.detector_bench.table import Run, load

__all__ = ["Run", "load"]
