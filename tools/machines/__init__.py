"""Trials on several machines, processes and cards, by hand: docs/machines.md."""
