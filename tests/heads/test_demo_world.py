"""The demo world's images say what is true of them, and the judge reads it without any network."""
import pytest
import torch

from readout_guidance_pack.heads.demo import judge, text, world
from tools import train_demo


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (80, 48)])
def test_the_judge_reads_drawn_images_right(size):
    scene = world.draw(64, *size, seed=1)
    found = judge.figures(scene.image, scene, scene)
    assert found["pck"] == 1 and found["valid"] == 1 and found["fscore"] > 0.999
    assert found["mae"] < 0.01 and found["texture"] < 0.01 and found["color_error"] < 0.02


def test_the_judge_tells_other_images_apart():
    scene, other = world.draw(64, seed=1), world.draw(64, seed=2)
    found = judge.figures(other.image, scene, scene)
    assert found["pck"] < 0.2 and found["mae"] > 0.1 and found["fscore"] < 0.6 and found["color_error"] > 0.3


def test_coarse_colors_are_told_by_their_means():
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0, :4, :4] = torch.tensor([0.0, 0.8]).repeat(4, 2)  # a mean of 0.4 in one of four parts, in one of three channels
    assert judge.coarse_error(image, torch.zeros(1, 3, 8, 8), 2).item() == pytest.approx(0.4 / 12)


def test_damage_shows():
    scene = world.draw(64, seed=1)
    noisy = scene.image + 10 / 255 * torch.randn(scene.image.shape, generator=torch.Generator().manual_seed(0))
    assert 3 < judge.texture(noisy.clamp(0, 1)).mean() < 12  # of the brightest of three channels
    without_hand = scene.image.clone()
    for b, (x, y) in enumerate(scene.joints[:, world.JOINTS.index("left hand")].long().tolist()):
        without_hand[b, :, max(0, y - 4):y + 5, max(0, x - 4):x + 5] = 0.5
    assert judge.valid(without_hand).mean() < 0.05


def test_a_seed_gives_the_same_images_every_time():
    assert torch.equal(world.draw(4, seed=3).image, world.draw(4, seed=3).image)
    assert not torch.equal(world.draw(4, seed=3).image, world.draw(4, seed=4).image)


def test_prompts_survive_the_tokenizer():
    scene = world.draw(16, seed=1)
    said = text.tokens(scene.shirt, scene.trousers, scene.scene)
    assert [text.tokenize(p) for p in scene.prompts()] == said.tolist()


@pytest.mark.parametrize("prompt,meaning", [("", ["", "", ""]), ("a dog", ["", "", ""]), ("sea", ["", "", "sea"]),
                                            ("Red SHIRT, (room:1.2)", ["red shirt", "", "room"]),
                                            ("blue trousers and a green shirt", ["green shirt", "blue trousers", ""])])
def test_prompts_may_leave_things_open(prompt, meaning):
    assert [text.VOCABULARY[token] for token in text.tokenize(prompt)] == meaning


def test_scenes_to_train_heads_on_come_with_what_the_heads_should_read():
    scene, wanted = train_demo.scenes(2, seed=3)
    assert len(scene.image) == 2 and set(wanted) == set(train_demo.DEMO_RANGES)
    for kind, (low, high) in train_demo.DEMO_RANGES.items():
        assert wanted[kind].shape == (2, 3, *train_demo.SIZE)
        assert low <= wanted[kind].min() and wanted[kind].max() <= high and wanted[kind].std() > 0.01
