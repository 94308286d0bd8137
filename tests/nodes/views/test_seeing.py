"""What a guided run shows, while it samples and after."""
import json
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import nodes as host_nodes
import pytest
import torch
from comfy.cli_args import LatentPreviewMethod, args
from comfy.latent_formats import Wan21
from comfy.patcher_extension import WrappersMP
from comfy.samplers import KSampler
from PIL import ImageChops

from readout_guidance_pack.heads import load_head
from readout_guidance_pack.heads.demo import HEADS_FOLDER
from readout_guidance_pack.nodes.common import drawing
from readout_guidance_pack.nodes.common.previews import latents_to_rgb
from readout_guidance_pack.nodes.demo.demo_model import load_demo
from readout_guidance_pack.nodes.demo.demo_nodes import DemoScene
from readout_guidance_pack.nodes.engine import Trace, guided
from readout_guidance_pack.nodes.engine.live_view import LiveView
from readout_guidance_pack.nodes.engine.trace import MOST
from readout_guidance_pack.nodes.samplers.guided_ksampler import KSamplerReadoutGuidance
from readout_guidance_pack.nodes.samplers.published import KSamplerReadoutGuidancePublished
from readout_guidance_pack.nodes.targets.depth import DepthTarget
from readout_guidance_pack.nodes.targets.pose import PoseTarget
from readout_guidance_pack.nodes.views.compare import ReadoutCompare
from readout_guidance_pack.nodes.views.trace import ReadoutTrace
from readout_guidance_pack.rg_core.guidance.updates import Move
from readout_guidance_pack.rg_core.readout.views import View
from tools.tables.parts import windowed

pytestmark = pytest.mark.usefixtures("inference_mode")
STEPS = 6


class World:
    def __init__(self):
        self.model, clip, self.vae = load_demo()
        self.words = clip.encode_from_tokens_scheduled(clip.tokenize("a figure in a red shirt and blue trousers, sea"))
        _, pose, depth, *_ = self.scene = DemoScene.execute(5, 64, 64, 1).args
        heads = {kind: load_head(HEADS_FOLDER / f"demo_{kind}.safetensors") for kind in ("pose", "depth")}
        self.guidance, = PoseTarget.execute(head=heads["pose"], image=pose, weight=1.0, start_percent=0.0, end_percent=0.9).args
        self.guidance, = DepthTarget.execute(head=heads["depth"], image=depth, weight=1.0, start_percent=0.3, end_percent=0.9,
                                             guidance=self.guidance).args
        self.settings = (1, STEPS, 3.0, "euler", "normal", self.words, self.words, {"samples": torch.zeros(2, 3, 64, 64)})

    def run(self, strength: float = 0.1) -> tuple:
        return KSamplerReadoutGuidance.execute(self.model, *self.settings, 1.0, self.guidance, strength).args


@pytest.fixture(scope="module")
def w():
    with torch.inference_mode():
        yield World()


@pytest.fixture
def shown(monkeypatch):
    """What the page is sent as the preview of the node that samples."""
    found = []
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK",
                        lambda value, total, preview, node_id=None: preview and found.append((value, total, preview)))
    return found


def test_after_each_step_the_node_shows_the_image_and_what_is_read(w, shown):
    latent, *_ = w.run()
    assert [(value, total) for value, total, _ in shown] == [(step + 1, STEPS) for step in range(STEPS)]
    kinds, images, limits = zip(*(preview for *_, preview in shown))
    assert set(kinds) == {"JPEG"} and set(limits) == {None}
    assert images[-1].height > images[0].height  # the depth joins later
    assert all(ImageChops.difference(one, other).getbbox() for one, other in pairwise(images[1:]))
    plain = host_nodes.common_ksampler(guided("other", w.model, w.guidance, Move()), *w.settings)[0]
    assert torch.equal(latent["samples"], plain["samples"])  # looking changes nothing


def test_what_was_read_stays_when_the_last_target_has_ended_and_says_from_when(w, shown, monkeypatch):
    drawn, sheet = [], drawing.sheet

    def draw(views, rgb, so_far=None, caption=""):
        drawn.append((len(views), caption))
        return sheet(views, rgb, so_far, caption)

    monkeypatch.setattr(drawing, "sheet", draw)
    w.run()
    views, captions = zip(*drawn[:STEPS])
    assert views == (1, 1, 2, 2, 2, 2)
    assert not any("read at" in caption for caption in captions[:-1]) and captions[-1].endswith(f"; read at step {STEPS - 1}")


def test_there_is_always_something_to_show(tmp_path):
    """The host's server ends when it is given a preview that it cannot write."""
    wide = drawing.sheet([], None, None, "step 1 of 6, 3 s left")
    wide.save(tmp_path / "preview.jpg")
    assert wide.width > drawing.sheet([], None, None, "step 1").width > drawing.MARGIN


def test_where_the_host_shows_no_previews_only_the_page_is_shown_what_is_read_unless_the_prompt_asks_for_none(w, shown, monkeypatch):
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.NoPreviews)
    w.run()
    assert not shown
    server = page(monkeypatch)
    w.run()
    assert len(shown) == STEPS
    server.asks["preview_method"] = "none"
    w.run()
    assert len(shown) == STEPS


def test_where_nobody_looks_nothing_is_drawn(w, monkeypatch):
    monkeypatch.setattr(LiveView, "image", None)
    w.run()


def test_another_node_that_samples_keeps_its_preview_and_ours_is_shown_on_the_one_that_guides(w, shown, monkeypatch):
    model, sent, server = guided("Apply Readout Guidance", w.model, w.guidance, Move(), Trace(shown_on="7")), [], page(monkeypatch)
    server.send_sync = lambda event, data, sid: sent.append((event, data, sid))
    host_nodes.common_ksampler(model, *w.settings)
    assert len(shown) == len(sent) == STEPS
    (kind, image, _), about = sent[-1][1]
    assert about["display_node_id"] == about["node_id"] == "7" and sent[-1][2] == "page" and kind == "JPEG"
    assert image.size > shown[-1][2][1].size


def page(monkeypatch):
    """A server that executes a prompt, with `asks` beside it, of a client that takes previews with their node."""
    asks = {}
    queue = SimpleNamespace(get_current_queue_volatile=lambda: ([(0, "p", {}, asks, [], {})], []))
    server = SimpleNamespace(client_id="page", last_prompt_id="p", prompt_queue=queue, asks=asks,
                             sockets_metadata={"page": {"feature_flags": {"supports_preview_metadata": True}}})
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    return server


def test_a_client_that_does_not_know_of_nodes_is_sent_no_second_preview(w, shown, monkeypatch):
    """It would show it on the node that samples, in the place of its own."""
    server = page(monkeypatch)
    server.sockets_metadata["page"]["feature_flags"] = {}
    server.send_sync = None
    host_nodes.common_ksampler(guided("Apply Readout Guidance", w.model, w.guidance, Move(), Trace(shown_on="7")), *w.settings)
    assert len(shown) == STEPS


class Frames(latent_preview.LatentPreviewer):
    """As packs with animated previews have it: frames [T, H, W, 3] in the place of an image."""

    def decode_latent_to_preview(self, x0):
        return torch.zeros(3, 8, 8, 3, dtype=torch.uint8)

    def decode_latent_to_preview_image(self, preview_format, x0):
        return None


class Broken(latent_preview.LatentPreviewer):
    def decode_latent_to_preview(self, x0):
        raise RuntimeError("no preview")

    decode_latent_to_preview_image = None


@pytest.mark.parametrize("on_itself", [True, False])
def test_no_preview_ends_a_run(w, shown, monkeypatch, caplog, on_itself):
    server, sent = page(monkeypatch), []
    server.send_sync = lambda event, data, sid: sent.append(data)
    plain = w.run()[0]["samples"]

    def run():
        sent.clear(), shown.clear()
        if on_itself:
            return w.run()[0]["samples"], len(shown)
        model = guided("Apply Readout Guidance", w.model, w.guidance, Move(), Trace(shown_on="7"))
        sigmas = KSampler(model, STEPS, w.model.load_device, "euler", "normal").sigmas
        latent = w.settings[-1]["samples"]
        noise, sampler = comfy.sample.prepare_noise(latent, 1), comfy.samplers.sampler_object("euler")
        out = comfy.sample.sample_custom(model, noise, 3.0, sampler, sigmas, w.words, w.words, latent)
        return out, len(sent)

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Frames())
    image, seen = run()
    assert torch.equal(image, plain) and seen == STEPS
    monkeypatch.setattr(latent_preview, "prepare_callback", lambda *_: None)  # which would fail by itself
    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Broken())
    image, seen = run()
    assert torch.equal(image, plain) and not seen
    assert sum("cannot be shown while it samples (RuntimeError: no preview)" in message for message in caplog.messages) == 1


def test_a_callback_that_another_pack_hands_on_is_called_at_each_step(w, shown):
    steps = []

    def follow(executor, noise, latent_image, sampler, sigmas, denoise_mask, callback, *args, **kwargs):
        def ours(step, *rest):
            steps.append(step)
            callback(step, *rest)

        return executor(noise, latent_image, sampler, sigmas, denoise_mask, ours, *args, **kwargs)

    model = w.model.clone()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "another pack", follow)
    KSamplerReadoutGuidance.execute(model, *w.settings, 1.0, w.guidance, 0.1)
    KSamplerReadoutGuidancePublished.execute(model, 1, STEPS, 3.0, 1.0, True, w.words, w.words, w.settings[-1], 0.02, w.guidance)
    assert steps == [*range(STEPS), *range(STEPS + 1)]  # ddim_uniform makes one more


def test_the_readouts_say_what_was_wanted_and_read_at_each_guided_step(w):
    _, trace, readouts = w.run()
    energies = [row for row in json.loads(trace) if row["target"] == "pose"]
    assert len(readouts) == len(energies) and readouts.min() >= 0 and readouts.max() <= 1
    wanted = readouts[-1, drawing.MARGIN + 2 * drawing.LINE:][:drawing.TILE, drawing.MARGIN:][:, :drawing.TILE]
    pose = torch.nn.functional.interpolate(w.scene[1].movedim(-1, 1), (32, 32), mode="bilinear", antialias=True)
    assert (torch.nn.functional.interpolate(wanted.movedim(-1, 0)[None], (32, 32), mode="area") - pose).abs().mean() < 0.01


def test_targets_of_one_kind_are_told_apart_by_number(w):
    """In the trace, the plot and the readouts, in a chain and over several nodes, in each context window, and the same in each run."""
    one, _ = w.guidance
    other = replace(one, image=one.image.flip(-1))

    def traced(model, *chains):
        trace = Trace()
        for guidance in chains:
            model = guided("KSampler (Readout Guidance)", model, guidance, Move(), trace)
        host_nodes.common_ksampler(model, 1, 3, 1.0, *w.settings[3:])
        return trace

    trace, again, nodes = traced(w.model, (one, other)), traced(w.model, (one, other)), traced(w.model, (one, other), (other,))
    assert trace.rows == again.rows and (one.name, other.name) == ("pose", "pose")
    assert [row["target"] for row in trace.rows[:3]] == [view.name for view in trace.latest] + ["pose"] == ["pose", "pose 2", "pose"]
    assert [row["energy"] for row in trace.rows[:2]] == [traced(w.model, (alone,)).rows[0]["energy"] for alone in (one, other)]
    assert [row["target"] for row in nodes.rows[:3]] == ["pose", "pose 2", "pose 3"]
    shades = {color for _, color in drawing.plot(trace.rows).getcolors(1 << 20)}
    assert {(79, 163, 255), (255, 138, 61)} <= shades
    windows = traced(windowed(w.model, 1, 0, False), (one, other)).rows
    assert len(windows) == 2 * len(trace.rows) and {row["target"] for row in windows} == {"pose", "pose 2"}


def test_a_run_in_which_nothing_was_guided_says_so(w):
    _, trace, readouts = w.run(strength=0.0)
    assert trace == "[]" and len(readouts) == 1
    assert torch.equal(readouts, drawing.batch([drawing.words("nothing was guided")]))
    assert torch.equal(ReadoutTrace.execute(trace)[0], readouts)


def test_a_trace_is_plotted(w, tmp_path, monkeypatch):
    rows = [{"sigma": 10.0 - step, "target": name, "energy": [scale * 0.8**step]} for step in range(10)
            for name, scale in (("pose", 3.0), ("drag", 100.0))]
    image = drawing.plot(rows)
    shades = {color for _, color in image.getcolors(1 << 20)}
    assert {(79, 163, 255), (255, 138, 61)} <= shades  # a line for each, over its own largest
    assert not ImageChops.difference(image, drawing.plot([row | {"energy": [2 * row["energy"][0]]} for row in rows])).getbbox()
    assert drawing.ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] and drawing.ticks(0, 19) == [0.0, 5.0, 10.0, 15.0]
    assert drawing.plot([rows[0]]).size == image.size
    many = [{"sigma": 1.0, "target": f"pose {n}", "energy": [1.0]} for n in range(2 * len(drawing.LINES))]
    legend, right = drawing.plot(many), 768 - 2 * drawing.MARGIN - 12
    marks = [legend.getpixel((right - drawing.length(row["target"]), drawing.MARGIN + drawing.LINE * (i + 1) + 9)) for i, row in enumerate(many)]
    assert len(set(marks[:8])) == 8 and len(set(marks[8:])) == 1  # discs, and rings of the same colors
    late = [row for row in rows if row["target"] == "pose" or row["sigma"] < 6.0]  # the drag begins at the sixth step
    line = drawing.plot(late).crop((0, 60, 768, 480))
    places = [x for x in range(768) for y in range(420) if line.getpixel((x, y)) == (255, 138, 61)]
    assert min(places) > 768 / 3


@pytest.mark.parametrize("trace", ["", "a picture", "{}", '[{"sigma": 1}]', '[{"target": "pose", "energy": []}]',
                                   '[{"target": "pose", "energy": ["a"]}]'])
def test_what_is_no_trace_is_refused(trace):
    with pytest.raises(ValueError, match="^Readout Trace: this is not the trace of a guided run"):
        ReadoutTrace.execute(trace)


def test_images_side_by_side():
    guided_images, target = torch.rand(3, 64, 48, 3), torch.rand(1, 128, 128, 3)
    rows = [[drawing.image(x.movedim(-1, 0)[None]) for x in (target[0], one)] for one in guided_images]
    image = drawing.side_by_side(["target", "guided"], rows, 256)
    assert image.size == (256 + 192 + 3 * drawing.MARGIN, drawing.LINE + drawing.MARGIN + 3 * (256 + drawing.MARGIN))
    corner = image.crop((256 + 2 * drawing.MARGIN, drawing.LINE + drawing.MARGIN, 256 + 2 * drawing.MARGIN + 4, drawing.LINE + drawing.MARGIN + 4))
    assert corner.getcolors() == [(16, tuple((guided_images[0, 0, 0] * 255).round().int().tolist()))]  # hard pixels
    with pytest.raises(ValueError, match="^Readout Compare: the image is empty"):
        ReadoutCompare.execute(torch.zeros(0, 8, 8, 3))
    with pytest.raises(ValueError, match="^Readout Compare: the image is a batch of 10001 images; the maximum is 10000"):
        ReadoutCompare.execute(torch.zeros(1, 8, 8, 3).expand(10_001, -1, -1, -1))


def test_a_long_run_keeps_views_evenly_and_few():
    trace, x = Trace(), torch.zeros(2, 1, 4, 4)
    for step in range(1, 1001):
        trace.add(1.0, 1, [], [], [View(str(step), torch.zeros(2), None, None, x)])
        assert trace.latest[0].name == str(step)
    numbers = [number for number, _ in trace.samples]
    assert MOST / 2 <= len(numbers) <= MOST and len({b - a for a, b in pairwise(numbers)}) == 1
    assert all(views[0].name == str(number) and len(views[0].pull) == 1 for number, views in trace.samples)
    trace.clear()
    assert trace == Trace()


def test_latents_are_shown_by_the_hosts_factors(w):
    image = latents_to_rgb(w.model.model.latent_format)(torch.full((2, 3, 4, 4), 0.5))
    expected = latent_preview.preview_to_image(torch.full((4, 4, 3), 0.5))
    assert image.size == (4, 4) and not ImageChops.difference(image, expected).getbbox()
    assert latents_to_rgb(SimpleNamespace(latent_rgb_factors=None, latent_dimensions=2))(torch.zeros(1, 3, 4, 4)) is None
    wan, latents = Wan21(), torch.randn(1, 16, 4, 4, generator=torch.manual_seed(0))  # which is for videos
    normal = (latents[0] - wan.latents_mean[0, :, 0]) / wan.latents_std[0, :, 0]
    colors = normal.movedim(0, -1) @ torch.tensor(wan.latent_rgb_factors) + torch.tensor(wan.latent_rgb_factors_bias)
    assert max(high for _, high in ImageChops.difference(latents_to_rgb(wan)(latents), latent_preview.preview_to_image(colors)).getextrema()) <= 1
