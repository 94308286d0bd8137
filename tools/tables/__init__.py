"""The tables of `run.py evaluate`."""
