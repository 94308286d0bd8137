"""The demo world and what was trained on it."""
from pathlib import Path

FOLDER = Path(__file__).parent
MODEL_FILE = FOLDER / "model.safetensors"
HEADS_FOLDER = FOLDER / "heads"
