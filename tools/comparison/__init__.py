"""Readouts beside a ControlNet on somebody's own checkpoint: `python run.py evaluate --checkpoint FILE ...`."""
