"""What `run.py gpu` measures on a card."""
