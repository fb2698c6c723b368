"""What stands behind `python -m nas.search`."""
