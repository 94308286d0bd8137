"""The demo world and what was trained on it."""
from pathlib import Path

FOLDER = Path(__file__).parent
MODEL_FILE, TRANSFORMER_FILE = FOLDER / "model.safetensors", FOLDER / "transformer.safetensors"
HEADS_FOLDER = FOLDER / "heads"
