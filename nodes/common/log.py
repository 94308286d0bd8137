"""What the pack says in ComfyUI's log, by a logger of its own: other packs silence the root's while they sample, as Ultimate SD Upscale does."""
import logging
from dataclasses import dataclass, field

log = logging.getLogger("readout_guidance")
log.setLevel(logging.getLogger().getEffectiveLevel())  # what ComfyUI was started with


@dataclass(frozen=True, eq=False)
class Log:
    """Warnings in the name of a node, each once."""
    node: str
    issued: set[str] = field(default_factory=set)

    def warn(self, text: str, about: str | None = None) -> None:
        """`about` tells one matter from others, if the text varies."""
        if (about or text) not in self.issued:
            self.issued.add(about or text)
            log.warning("%s: %s", self.node, text)
