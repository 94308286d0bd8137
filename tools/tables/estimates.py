"""What Readout Estimate reads of drawn scenes, by noise level: `python run.py evaluate --estimates [--seeds N]`."""
import torch

from readout_guidance_pack.nodes.make_heads.estimate import ReadoutEstimate
from readout_guidance_pack.rg_core.images.control_images import fit
from tools.tables.control import BATCH, NOISE_SEED, Bench, show

PERCENTS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


@torch.inference_mode()
def estimates(seeds: int) -> dict:
    """For each spatial head, prompt and percent the share of the truth's variance that is read, and the mean absolute error."""
    bench, results = Bench(seeds), {}
    said = torch.cat([bench.clip.encode_from_tokens_scheduled(bench.clip.tokenize(p))[0][0] for p in bench.scene.prompts()])
    for kind, head in bench.heads.items():
        truth = fit(bench.images[kind].movedim(-1, 1), bench.size).movedim(1, -1)
        spread = (truth - truth.mean(0)).square().mean()
        for prompt in ("its own", "none"):
            for percent in PERCENTS:
                read = []
                for part in torch.arange(seeds).split(BATCH):
                    positive = [[said[part], {}]] if prompt == "its own" else bench.negative
                    read.append(ReadoutEstimate.execute(bench.model, head, positive, percent, NOISE_SEED,
                                                        image=bench.scene.image[part].movedim(1, -1), vae=bench.vae)[0])
                error = torch.cat(read) - truth
                figures = {"explained": round((1 - error.square().mean() / spread).item(), 4),
                           "mae": round(error.abs().mean().item(), 4)}
                results.setdefault(kind, {})[f"prompt {prompt}, percent {percent}"] = figures
                show(kind, f"prompt {prompt}, percent {percent}", figures)
    return results
