"""Readout Estimate inside the real host, on the demo model."""
import copy

import comfy.hooks
import node_helpers
import nodes as host_nodes
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from comfy_execution.graph_utils import ExecutionBlocker

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER, world
from readout_guidance_pack.nodes.demo import demo_model
from readout_guidance_pack.nodes.make_heads import estimate
from readout_guidance_pack.nodes.references import recording_ksampler
from readout_guidance_pack.nodes.references.renoise import ReadoutReference
from readout_guidance_pack.nodes.samplers import guided_ksampler
from readout_guidance_pack.nodes.samplers.apply import ApplyReadoutGuidance
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.drag import DragTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from readout_guidance_pack.rg_core.features import taps
from readout_guidance_pack.rg_core.readout.head import ReadoutHead
from tiny_transformers import conditioning, tiny_model, video_vae
from transformer_sampling import depth_head

pytestmark = pytest.mark.usefixtures("inference_mode")

CHANNELS = [128] * 4 + [64] * 3  # the demo model's taps


def keypoint_head(maps=18):
    torch.manual_seed(3)
    return ReadoutHead("keypoints", CHANNELS, projection_dim=128, emb_channels=256, out_channels=maps, tanh=False, stride=2).eval()


class World:
    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load_demo()
        with torch.inference_mode(False):
            self.heads = {path.stem.removeprefix("demo_"): load_head(path) for path in HEADS_FOLDER.glob("*.safetensors")}
            self.heads["keypoints"] = keypoint_head().requires_grad_(False)
        self.positive = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        self.scene = world.draw(4, seed=5)

    def estimate(self, kind, percent=0.9, seed=1, **changes):
        given = {"model": self.model, "head": self.heads.get(kind), "positive": self.positive, "percent": percent, "seed": seed}
        if not {"latent", "image"} & changes.keys():
            given |= {"image": self.scene.image.movedim(1, -1), "vae": self.vae}
        return estimate.ReadoutEstimate.execute(**given | changes).args


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


def test_depth_is_read_well(w):
    image, _ = w.estimate("depth")
    assert image.shape == (4, 64, 64, 3) and image.min() >= 0 and image.max() <= 1
    truth = w.scene.nearness
    error, constant = (image.mean(-1) - truth).abs().mean(), (truth.mean() - truth).abs().mean()
    assert error < 0.25 * constant
    assert torch.corrcoef(torch.stack([image.mean(-1).flatten(), truth.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["depth", "appearance"])
def test_the_seed_is_all_that_chance_depends_on(w, kind):
    image, _ = w.estimate(kind, percent=0.5)
    assert torch.equal(image, w.estimate(kind, percent=0.5)[0])
    assert not torch.equal(image, w.estimate(kind, percent=0.5, seed=2)[0])
    assert not torch.equal(image, w.estimate(kind, percent=0.6)[0])
    latent = {"samples": w.vae.encode(w.scene.image.movedim(1, -1))}
    assert torch.equal(image, w.estimate(kind, percent=0.5, latent=latent)[0])
    lone = w.estimate("depth", percent=0.5, latent={"samples": latent["samples"][2:3], "batch_index": [2]})[0]
    assert torch.allclose(lone, w.estimate("depth", percent=0.5)[0][2:3], atol=1e-5)


def test_an_estimated_pose_steers_other_images(w):
    image, _ = w.estimate("pose")
    guidance = PoseTarget.execute(w.heads["pose"], 1.0, 0.0, 0.5, image=image)[0]
    rest = (1, 4, 3.0, "euler", "karras", w.positive, w.positive, {"samples": torch.zeros(4, 3, 64, 64)}, 1.0)
    guided, plain = (guided_ksampler.KSamplerReadoutGuidance.execute(w.model, *rest, guidance, strength)[0]["samples"]
                     for strength in (0.1, 0.0))
    near, far = ((w.estimate("pose", latent={"samples": x})[0] - image).square().mean() for x in (guided, plain))
    assert near < 0.8 * far


def test_relative_heads_are_shown_in_colors(w):
    for kind in ("appearance", "identity", "correspondence"):
        image, _ = w.estimate(kind)
        assert image.shape == (4, 64, 64, 3) and image.min() >= 0 and image.max() <= 1
        assert (image.flatten(0, 2).std(0) > 0.05).all()


def test_images_of_any_shape(w):
    scene = world.draw(1, 48, 80, seed=6)
    image, _ = w.estimate("depth", image=scene.image.movedim(1, -1), vae=w.vae)
    assert image.shape == (1, 48, 80, 3) and (image.mean(-1) - scene.nearness).abs().mean() < 0.1


def test_a_batch_is_images_to_a_vae_that_takes_it_for_a_video_too(w):
    model, vae, images = tiny_model("qwen-image"), video_vae(), w.scene.image[:3].movedim(1, -1)
    given = {"model": model, "head": depth_head(model), "positive": conditioning("qwen-image", 0)}
    found, _ = w.estimate(None, **given, image=images, vae=vae)
    alone = torch.cat([vae.encode(x[None]) for x in images])
    assert found.shape == (3, 64, 64, 3) and torch.equal(found, w.estimate(None, **given, latent={"samples": alone})[0])


def test_the_model_is_left_as_it_was_and_sampling_too(w):
    unet = w.model.model.diffusion_model

    def state():
        return ([(name, id(p)) for name, p in unet.named_parameters()], [len(m._forward_hooks) for m in unet.modules()],
                {kind: {key: list(ws) for key, ws in by_key.items()} for kind, by_key in w.model.wrappers.items()})

    def sampled():
        guidance = DepthTarget.execute(w.heads["depth"], w.estimate("depth")[0], 1.0, 0.0, 0.5)[0]
        return guided_ksampler.KSamplerReadoutGuidance.execute(w.model, 1, 3, 3.0, "euler", "karras", w.positive, w.positive,
                                                               {"samples": torch.zeros(4, 3, 64, 64)}, 1.0, guidance, 0.1)[0]["samples"]

    before, image = state(), sampled()
    for kind in w.heads:
        w.estimate(kind)
    with pytest.raises(RuntimeError):
        w.estimate("depth", positive=[[torch.zeros(1, 3, 5), {}]])  # fails within the model
    assert state() == before
    assert torch.equal(sampled(), image)


def test_guidance_on_the_model_does_not_touch_the_estimate(w):
    small = {"samples": torch.zeros(1, 3, 32, 32)}
    _, reference = recording_ksampler.KSamplerReadoutReference.execute(w.model, 1, 2, 1.0, "euler", "karras", w.positive, w.positive,
                                                                       small, 1.0, 64).args
    drag = DragTarget.execute(reference, "[[[0.3, 0.4], [0.6, 0.5]]]", 1.0, 0.0, 1.0, w.heads["correspondence"],
                              mask=torch.ones(1, 32, 32))[0]  # of another size: sampling would refuse it
    guided = ApplyReadoutGuidance.execute(w.model, drag, 0.1)[0]
    assert torch.equal(w.estimate("depth", model=guided)[0], w.estimate("depth")[0])
    assert guided.wrappers  # which is still guided


def watched(w, *arguments):
    """(x, timesteps) that the model was asked with during an estimate, and the estimate."""
    seen, unet = [], w.model.model.diffusion_model
    hook = unet.register_forward_pre_hook(lambda _module, args: seen.append(args[:2]))
    try:
        found = w.estimate(*arguments)
    finally:
        hook.remove()
    return *seen[0], found


def by_hand(w, head, x, timesteps, told):
    """What the head reads if it is told of the timestep `told`."""
    unet = w.model.model.diffusion_model
    with taps.record(unet) as readings:
        unet(x, timesteps, context=w.positive[0][0].expand(len(x), -1, -1))
    emb = unet.time_embed(timestep_embedding(torch.full((len(x),), told), unet.model_channels))
    return head(readings[0].features, emb, (32, 32))


def test_keypoints_are_read_of_the_clean_image_as_the_published_heads_were_trained(w):
    x, timesteps, (image, frames) = watched(w, "keypoints")
    latent = w.vae.encode(w.scene.image.movedim(1, -1))
    assert timesteps.tolist() == [1] * 4 and torch.allclose(x.float().cpu(), latent.cpu(), atol=2e-3)  # the model's input at that timestep, no noise
    maps = by_hand(w, w.heads["keypoints"], x, timesteps, 999)
    assert [len(frame["people"]) for frame in frames] == [1] * 4
    for frame, of in zip(frames, maps):
        assert (frame["canvas_width"], frame["canvas_height"]) == (64, 64)
        points = torch.tensor(frame["people"][0]["pose_keypoints_2d"]).view(18, 3)
        assert (points[:, :2] > 0).all() and (points[:, :2] < 64).all() and (points[:, 2] >= 0).all() and (points[:, 2] <= 1).all()
        for (column, row, _), m in zip(points.tolist(), of):
            assert m[int(row) // 2, int(column) // 2] > m.max() - 1e-4
    assert image.shape == (4, 64, 64, 3)
    again = w.estimate("keypoints", percent=0.2, seed=9)
    assert again[1] == frames and torch.equal(again[0], image)


def test_heads_of_the_authors_training_are_told_the_steps_done(w):
    head = copy.copy(w.heads["depth"])
    x, timesteps, (image, _) = watched(w, "depth")
    own = (by_hand(w, head, x, timesteps, int(timesteps[0])) + 1) / 2
    head.config = {"diffusion_mode": "generation"}
    theirs = (by_hand(w, head, x, timesteps, 1000 - int(timesteps[0])) + 1) / 2
    for found, expected in ((image, own), (w.estimate(None, head=head)[0], theirs)):
        shown = torch.nn.functional.interpolate(expected.clamp(0, 1), size=(64, 64), mode="bilinear").movedim(1, -1)
        assert torch.allclose(found, shown, atol=1e-4)
    assert (own - theirs).abs().max() > 0.01


def test_visible_keypoints_are_drawn_and_make_a_pose_target(w):
    head = keypoint_head()
    head.output_head[-1].bias.data += 1  # every point visible
    image, frames = w.estimate(None, head=head)
    assert image.max() > 0.5
    target, = PoseTarget.execute(w.heads["pose"], 1.0, 0.0, 0.5, keypoints=frames)[0]
    assert target.image.shape == (4, 3, 512, 512)


def test_other_heads_give_no_keypoints_and_say_so_to_whoever_wants_them(w):
    _, keypoints = w.estimate("depth")
    assert isinstance(keypoints, ExecutionBlocker) and "reads depth" in keypoints.message and "Readout Estimate" in keypoints.message


def test_several_conditionings_share_the_image(w):
    other = w.clip.encode_from_tokens_scheduled(w.clip.tokenize("a figure in a red shirt, sea"))
    one, both, twice = (w.estimate("depth", positive=c)[0] for c in (w.positive, w.positive + other, w.positive + w.positive))
    assert torch.allclose(one, twice, atol=1e-4) and not torch.allclose(one, both, atol=1e-4)


def test_areas_that_cover_the_image_together_read_it_whole(w):
    halves = [part for at in (0.0, 0.5) for part in host_nodes.ConditioningSetAreaPercentage().append(w.positive, 0.5, 1.0, at, 0.0, 1.0)[0]]
    rest = comfy.hooks.set_default_conds_and_combine([halves[:1]], [w.positive])
    for positive in (halves, rest[0]):
        assert (w.estimate("depth", positive=positive)[0].mean(-1) - w.scene.nearness).abs().mean() < 0.15


def test_a_latent_with_a_grey_hole_is_noticed(w, caplog):
    image, mask = w.scene.image.movedim(1, -1), torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    whole = {"samples": w.vae.encode(image), "noise_mask": mask[:, None]}
    w.estimate("depth", latent=whole)
    w.estimate("depth", latent={**whole, "samples": torch.zeros(4, 3, 64, 64)})  # nothing at all
    assert "flat" not in caplog.text
    holed, = host_nodes.VAEEncodeForInpaint().encode(w.vae, image, mask)
    w.estimate("depth", latent=holed)
    ReadoutReference.execute(w.model, w.positive, holed, 1, 64)
    said = [record.getMessage() for record in caplog.records if "flat inside its mask" in record.getMessage()]
    assert [text.split(":")[0] for text in said] == ["Readout Estimate", "Readout Reference"]


BAD = {
    "neither": (lambda w: {"latent": None}, ["neither latent nor image"]),
    "both": (lambda w: {"latent": {"samples": torch.zeros(1, 3, 8, 8)}, "image": torch.zeros(1, 8, 8, 3)}, ["both latent and image"]),
    "no vae": (lambda w: {"image": torch.zeros(1, 8, 8, 3)}, ["needs the VAE"]),
    "empty": (lambda w: {"image": torch.zeros(1, 0, 8, 3), "vae": w.vae}, ["image is empty"]),
    "nan": (lambda w: {"image": torch.full((1, 8, 8, 3), torch.nan), "vae": w.vae}, ["NaN"]),
    "nan latent": (lambda w: {"latent": {"samples": torch.full((1, 3, 8, 8), torch.nan)}}, ["latent contains NaN"]),
    "other model's latent": (lambda w: {"latent": {"samples": torch.zeros(1, 4, 8, 8)}}, ["4 channels", "DemoWorld", "needs 3"]),
    "a video": (lambda w: {"latent": {"samples": torch.zeros(1, 3, 2, 8, 8)}}, ["2 frames", "videos cannot be guided yet"]),
    "other model's head": (lambda w: {"head": ReadoutHead("pose", [1280, 640], base_model="SD 1.5"),
                                      "latent": {"samples": torch.zeros(1, 3, 8, 8)}}, ["SD 1.5", "[1280, 640]", "DemoWorld", "128"]),
    "other skeleton": (lambda w: {"head": keypoint_head(17), "latent": {"samples": torch.zeros(1, 3, 8, 8)}}, ["17 heatmaps", "18"]),
    "an area": (lambda w: {"positive": host_nodes.ConditioningSetAreaPercentage().append(w.positive, 0.5, 1.0, 0.0, 0.0, 1.0)[0]},
                ["leaves out 50% of the image"]),
    "a mask": (lambda w: {"positive": host_nodes.ConditioningSetMask().append(w.positive, torch.eye(64)[None], "default", 1.0)[0]},
               ["leaves out 98% of the image"]),
    "too late": (lambda w: {"positive": node_helpers.conditioning_set_values(w.positive, {"start_percent": 0.0, "end_percent": 0.2}),
                            "latent": {"samples": torch.zeros(1, 3, 8, 8)}}, ["is not active at this noise level"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(w, name):
    changes, words = BAD[name]
    with pytest.raises(ValueError, match="^Readout Estimate: ") as failure:
        w.estimate("depth", **changes(w))
    assert all(word in str(failure.value) for word in ["Readout Estimate", *words]), str(failure.value)
