"""Targets, their energies, gradients, and moves."""
