"""Hydra, and only here: typed schemas of the commands and the one wrapper that every main uses."""

from nas.config.launch import launch

__all__ = ["launch"]
