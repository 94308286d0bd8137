"""The pack's nodes on the demo's flow transformer: what works on UNets works here, told apart by what comes out."""
import comfy.ldm.lumina.model
import comfy.model_management
import comfy.utils
import folder_paths
import nodes as host_nodes
import pytest
import torch

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER, judge, world
from readout_guidance_pack.nodes.demo.demo_nodes import LoadDemoModel
from readout_guidance_pack.nodes.engine import Trace, guided
from readout_guidance_pack.nodes.make_heads.estimate import ReadoutEstimate
from readout_guidance_pack.nodes.make_heads.fit import FitReadoutHead
from readout_guidance_pack.nodes.make_heads.fit_attribute import FitAttribute
from readout_guidance_pack.nodes.make_heads.fit_comparing import FitComparingHead
from readout_guidance_pack.nodes.make_heads.load_save import SaveReadoutHead
from readout_guidance_pack.nodes.make_heads.train import TrainReadoutHead
from readout_guidance_pack.nodes.references.invert import ReadoutInvert
from readout_guidance_pack.nodes.references.recording_ksampler import KSamplerReadoutReference
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.targets.attribute import AttributeTarget
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.likeness import AppearanceTarget, IdentityTarget, StructureTarget
from readout_guidance_pack.rg_core.guidance.updates import Move

pytestmark = pytest.mark.usefixtures("inference_mode")
EULER = "euler", "simple"


class World:
    def __init__(self):
        self.model, self.clip, self.vae = LoadDemoModel.execute("transformer").args
        self.said, self.empty = self.words("a figure in a red shirt and blue trousers, sea"), self.words("")
        self.scene = world.draw(24, seed=5)
        self.images = self.scene.image.movedim(1, -1)
        self.latents = {"samples": self.vae.encode(self.images)}
        self.depth = self.scene.nearness[..., None].expand(-1, -1, -1, 3)
        self.head, self.report, self.sheet = self.fit(FitReadoutHead, latents=self.latents, image=self.depth, kind="depth").args

    def words(self, prompt: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))

    def fit(self, node, **given):
        """Nodes that make heads are given lists."""
        return node.execute(**{name: [value] for name, value in {"model": self.model, "positive": self.empty, "seed": 3, **given}.items()})

    def one(self, i: int = 0) -> dict:
        return {"samples": self.latents["samples"][i:i + 1]}

    def sample(self, model, latent=None, steps: int = 8, cfg: float = 3.0, **more) -> torch.Tensor:
        latent = latent or {"samples": torch.zeros(2, 3, 64, 64)}
        return host_nodes.common_ksampler(model, 7, steps, cfg, *EULER, self.said, self.empty, latent, **more)[0]["samples"]

    def energies(self, *targets, steps: int = 8) -> list[float]:
        """Their means at each step of a guided run."""
        trace = Trace()
        self.sample(guided("test", self.model, targets, Move(), trace), steps=steps)
        return [sum(row["energy"]) / len(row["energy"]) for row in trace.rows]


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


def decoded(w: World, samples: torch.Tensor) -> torch.Tensor:
    return w.vae.decode(samples).movedim(-1, 1)


def test_the_model_is_of_the_hosts_own_class_and_a_flow(w):
    assert type(w.model.model.diffusion_model) is comfy.ldm.lumina.model.NextDiT
    assert w.model.get_model_object("model_sampling").percent_to_sigma(0.0) == 1.0
    unet, _, _ = LoadDemoModel.execute().args
    assert type(unet.model.diffusion_model).__name__ == "UNetModel"


def test_a_fitted_head_reads_images_that_it_has_not_seen(w):
    other = world.draw(4, seed=6)
    shown, _ = ReadoutEstimate.execute(w.model, w.head, w.empty, 0.9, 0, image=other.image.movedim(1, -1), vae=w.vae).args
    mean = w.scene.nearness.mean(0)
    error, before = ((x - other.nearness).square().mean() for x in (shown[..., 0], mean.expand(4, -1, -1)))
    assert error < 0.2 * before
    assert w.head.taps and all(name.startswith("layers.") for name in w.head.taps)


def test_a_depth_steers(w):
    target, = DepthTarget.execute(w.head, w.depth[:1], 1.0, 0.0, 0.9)[0]
    unguided, steered = (decoded(w, w.sample(model)) for model in (w.model, guided("test", w.model, (target,), Move())))
    errors = [(judge.nearness(x) - w.scene.nearness[:1]).abs().mean() for x in (unguided, steered)]
    assert errors[1] < 0.6 * errors[0]


def test_training_goes_on_where_it_stopped(w, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    given = {"latents": w.latents, "image": w.depth, "kind": "depth", "preset": "small", "batch_size": 2, "learning_rate": 0.0,
             "filename_prefix": "readout_heads/t"}
    whole, loss, *_ = w.fit(TrainReadoutHead, **given, steps=6, resume=False).args
    twice = given | {"filename_prefix": "readout_heads/twice", "steps": 6}
    with monkeypatch.context() as patch, pytest.raises(comfy.model_management.InterruptProcessingException):
        patch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, *_, **__: value >= 3 and comfy.model_management.interrupt_current_processing())
        w.fit(TrainReadoutHead, **twice, resume=False)
    head, curve, *_ = w.fit(TrainReadoutHead, **twice, resume=True).args
    assert len(loss["loss"]) == 6 and curve["loss"] == loss["loss"]
    assert whole.bottleneck_layers[0].deviation is not None
    assert all(torch.equal(x, head.state_dict()[name]) for name, x in whole.state_dict().items())
    again = load_head(next((tmp_path / "readout_heads").glob("t_*.safetensors")))
    assert torch.equal(again.bottleneck_layers[0].mean, whole.bottleneck_layers[0].mean)
    assert w.energies(*DepthTarget.execute(again, w.depth[:1], 1.0, 0.0, 1.0)[0], steps=20)


def test_inversion_there_and_back(w):
    """With no noise added the host's samplers leave nothing of what they begin with at full noise; a MODEL that went through ours, if only with
    strength 0, begins with it."""
    noise, reference = ReadoutInvert.execute(w.model, w.said, w.empty, w.one(), 20, 1.0, "simple", 64).args
    target, = DepthTarget.execute(w.head, w.depth[:1], 1.0, 0.0, 0.9)[0]
    for strength in (0.0, 1e-6):
        back = w.sample(guided("test", w.model, (target,), Move(strength)), noise, 20, 1.0, disable_noise=True)
        error = (decoded(w, back) - decoded(w, w.one()["samples"])).square().mean()
        assert -10 * error.log10() > 35  # dB
    assert reference.trajectory.sigmas[-1] == 1.0


def test_a_drag_moves_a_hand_with_no_head(w):
    latent, reference = KSamplerReadoutReference.execute(w.model, 7, 20, 3.0, *EULER, w.said, w.empty, {"samples": torch.zeros(1, 3, 64, 64)}, 1.0,
                                                         256).args
    given = decoded(w, latent["samples"])
    joints, _ = judge.joints(given)
    hand = joints[0, 4] / 64
    place = (hand + torch.tensor([0.0, 0.15])).clamp(0.1, 0.9)
    chain = DragTarget.execute(reference, f"[[[{hand[0]},{hand[1]}],[{place[0]},{place[1]}]]]", 1.0, 0.0, 0.9)[0]
    chain = AppearanceTarget.execute(reference, 0.05, 0.0, 0.9, guidance=chain)[0]
    model = guided("test", w.model, tuple(chain), Move())
    moved = decoded(w, host_nodes.common_ksampler(model, 7, 20, 3.0, *EULER, w.said, w.empty, {"samples": torch.zeros(1, 3, 64, 64)})[0]["samples"])
    far, near = (judge.distance(x, torch.tensor([4]), place[None] * 64, hand[None] * 64) for x in (given, moved))
    assert near < 0.5 * far


@pytest.mark.parametrize("make", [
    lambda w, reference: AppearanceTarget.execute(reference, 1.0, 0.0, 0.9), lambda w, reference: StructureTarget.execute(reference, 1.0, 0.0, 0.9),
    lambda w, reference: IdentityTarget.execute(w.fit(FitComparingHead, vae=w.vae, images=w.images, kind="identity").args[0], reference, 1.0, 0.0,
                                                0.9),
    lambda w, reference: DragTarget.execute(reference, "[[[0.4,0.4],[0.6,0.5]]]", 1.0, 0.0, 0.9,
                                            w.fit(FitComparingHead, vae=w.vae, images=w.images, kind="correspondence").args[0])],
    ids=["appearance", "structure", "identity by a fitted head", "drag by a fitted head"])
def test_what_compares_with_a_reference_comes_nearer_to_it(w, make):
    reference, = ReadoutReference.execute(w.model, w.empty, w.one(3), 7, 64).args
    energies = w.energies(*make(w, reference)[0])
    assert energies[-1] < energies[0]


def test_an_attribute(w):
    dusk = {"samples": w.latents["samples"][w.scene.scene == 3]}
    light = {"samples": w.latents["samples"][w.scene.scene != 3]}
    head, _ = w.fit(FitAttribute, pictures_with=dusk, pictures_without=light, name="dusk").args
    more, less = (decoded(w, w.sample(guided("test", w.model, tuple(AttributeTarget.execute(head, amount, 0.0, 0.9)[0]), Move())))
                  for amount in (1.0, -1.0))
    assert more.mean() < less.mean()


def test_a_head_that_was_made_on_the_unet_is_refused(w):
    target, = DepthTarget.execute(load_head(HEADS_FOLDER / "demo_depth.safetensors"), w.depth[:1], 1.0, 0.0, 0.9)[0]
    with pytest.raises(ValueError, match="^test: the depth head"):
        guided("test", w.model, (target,), Move())


def test_a_saved_head_steers_as_before(w, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    SaveReadoutHead.execute(w.head, "readout_heads/mine")
    again = load_head(next((tmp_path / "readout_heads").glob("mine*.safetensors")))
    results = [w.sample(guided("test", w.model, tuple(DepthTarget.execute(head, w.depth[:1], 1.0, 0.0, 0.9)[0]), Move())) for head in (w.head, again)]
    assert torch.allclose(*results, atol=0.05)
