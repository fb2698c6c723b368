"""Searched backbones of the TinyNAS, GELAN and C3k2 spaces under one latency budget."""
