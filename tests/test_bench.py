"""What `run.py bench` counts and fits; its timings are left to itself."""
import pytest
import torch

from readout_guidance_pack.nodes.engine import memory
from readout_guidance_pack.nodes.engine.reader import Reader
from tools import bench
from tools.benchmarks import scaling
from tools.benchmarks.costs import STEPS, most_kept, sample
from tools.benchmarks.models import demo


def test_what_is_kept_counts_storages_once_and_no_weights():
    weight, x = torch.randn(8, 8), torch.randn(4, 8, requires_grad=True)

    def step():
        y = (x @ weight).exp()           # keeps the weight, which is not counted, and its result
        torch.autograd.grad((y * y.T.T).sum(), x)  # keeps two views of that result

    for _ in range(2):  # nothing is left of the first time
        assert most_kept(step, [weight]) == 4 * 8 * 4
    assert most_kept(step, []) == 4 * 8 * 4 + 8 * 8 * 4


@torch.inference_mode()
def test_kept_comes_in_the_unit_in_which_the_host_is_told(monkeypatch):
    subject = demo(shape=(1, 3, 32, 32))
    kept = bench.kept(subject)
    assert 0 < kept[bench.HEAD] < kept["blocks computed again"] < kept["blocks kept"]
    monkeypatch.setitem(bench.MODELS, "demo", lambda: subject)
    monkeypatch.setattr(bench, "IMAGE_STEPS", 2)
    result = bench.measure("demo", 1)
    assert result["kept_bytes"] == kept
    labels = {False: "blocks kept", True: "blocks computed again"}
    monkeypatch.setattr(memory, "KEPT", {again: result["kept_unit"][label] for again, label in labels.items()})
    monkeypatch.setattr(memory, "HEAD", result["kept_unit"][bench.HEAD])
    for again, label in labels.items():
        assert memory.guided_step_bytes(subject.model.model, subject.shape, [], [subject.head], again) == pytest.approx(kept[label], rel=0.02)
    images = {"default", "fitted head", "drag", bench.SHOWN, "default, 4 LCM steps", "fitted head, 4 LCM steps"}
    assert set(result["picture_ratio"]) == images and result["guided_step_ratio"]["default"] > 0


@torch.inference_mode()
def test_a_drags_second_image_reads_its_reference_no_more(monkeypatch):
    subject, reads = demo(shape=(1, 3, 32, 32)), []
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda *args: reads.append(args) or read(*args))
    drag = bench.images(subject)["drag"]
    for expected in (len(STEPS) - 1, 0):
        sample(drag, subject.conditioning, subject.shape)
        assert len(reads) == expected
        reads.clear()


def test_scaling_finds_the_law_and_draws_it(tmp_path):
    seconds = {("pixels", side**2, guided): (1 + guided) * 1e-4 * (side**2)**0.8 for side in scaling.SIDES for guided in (False, True)}
    seconds |= {("batch", n, guided): (1 + guided) * 0.1 * n for n in scaling.BATCHES for guided in (False, True)}
    seconds |= {("targets", 0, False): 0.5} | {("targets", n, True): 1 + 0.05 * n for n in range(1, 5)}
    report = scaling.summary(seconds)
    assert [report[axis][kind]["exponent"] for axis in ("pixels", "batch") for kind in ("plain", "guided")] == [0.8, 0.8, 1.0, 1.0]
    assert report["targets"]["further_target_ratio"] == 0.1
    image = tmp_path / "scaling.png"
    scaling.draw(report, str(image))
    assert image.read_bytes().startswith(b"\x89PNG") and image.stat().st_size < 100_000
