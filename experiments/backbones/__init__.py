"""GELAN, C3k2 and TinyNAS backbones of equal predicted latency under one neck, head and recipe."""
