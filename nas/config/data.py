"""Schemas of the `data` group and of `python -m nas.data`."""

from nas.data.options import DataCommand, DataConfig, Download, Split

__all__ = ["DataCommand", "DataConfig", "Download", "Split"]
