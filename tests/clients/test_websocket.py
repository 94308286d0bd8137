"""What a client is sent over its websocket, byte for byte of its kind, that did not ask for previews, and the page."""
import asyncio
import itertools
import json
import struct
import uuid
from collections import Counter

import aiohttp
import pytest

from small import STEPS, workflow
from tools.assets.workflow import to_api

PREVIEW, TEXT, PREVIEW_OF_A_NODE = 1, 3, 4  # the host's kinds of binary messages
SEEDS = itertools.count()  # another one each time, so that nothing comes from the server's cache
PAGE = {"supports_preview_metadata": True}


async def follow(server, prompt: dict, flags: dict | None, extra: dict) -> Counter:
    client = uuid.uuid4().hex
    received = Counter()
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.address}/ws?clientId={client}", max_msg_size=0) as socket:
        if flags is not None:
            await socket.send_json({"type": "feature_flags", "data": flags})
        queued = await asyncio.to_thread(server.post, "/prompt", {"prompt": prompt, "client_id": client, "extra_data": extra})
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                received[struct.unpack(">I", message.data[:4])[0]] += 1
                continue
            content = json.loads(message.data)
            assert content["type"] != "execution_error", content
            if content["type"] == "progress":
                received["progress"] += 1
            if content["type"] == "executing" and content["data"]["node"] is None and content["data"]["prompt_id"] == queued["prompt_id"]:
                return received


def received(server, prompt: dict, flags: dict | None = None, **extra) -> Counter:
    """How many binary messages of each kind, and how many of "progress", reach a client that announces `flags` and gives `extra` with its prompt."""
    return asyncio.run(follow(server, prompt, flags, extra))


def sampled_by_the_pack(server) -> dict:
    prompt = to_api(workflow("pose"), server.get("/object_info"))
    for name in ("11", "13", "15", "17", "18"):  # the stock KSampler beside it, and what shows both
        del prompt[name]
    prompt["10"]["inputs"]["seed"] = next(SEEDS)
    return prompt


def sampled_by_the_host(server) -> dict:
    """The same, by the stock KSampler, whose MODEL is guided."""
    prompt = sampled_by_the_pack(server)
    given = prompt["10"]["inputs"]
    prompt["20"] = {"class_type": "ApplyReadoutGuidance", "inputs": {name: given[name] for name in ("model", "guidance", "strength")}}
    inputs = {name: value for name, value in given.items() if name not in ("guidance", "strength")} | {"model": ["20", 0]}
    prompt["10"] = {"class_type": "KSampler", "inputs": inputs}
    return prompt


GUIDED = {"by the pack": sampled_by_the_pack, "by the host": sampled_by_the_host}
# What a client announces, and gives with its prompt.
NOBODY_ASKED = {"no page": (None, {}), "no page, none": (None, {"preview_method": "none"}), "another's flags": ({"supports_manager_v4_ui": True}, {}),
                "the page, none": (PAGE, {"preview_method": "none"})}


@pytest.mark.parametrize("case", NOBODY_ASKED)
@pytest.mark.parametrize("way", GUIDED)
def test_a_client_that_asked_for_no_previews_is_sent_none(server, way, case):
    flags, extra = NOBODY_ASKED[case]
    got = received(server, GUIDED[way](server), flags, **extra)
    assert set(got) == {"progress"} and got["progress"] >= 2  # the first and the last are always sent


@pytest.mark.parametrize("way", GUIDED)
def test_the_page_is_shown_each_step_in_messages_that_say_of_which_node(server, way):
    got = received(server, GUIDED[way](server), PAGE)
    assert {kind: n for kind, n in got.items() if kind != "progress"} == {PREVIEW_OF_A_NODE: STEPS}


def test_previews_that_a_client_asks_for_are_sent(server):
    """By preview_method in its prompt; on the node that the pack samples, with what is read."""
    for flags, kind in ((None, PREVIEW), (PAGE, PREVIEW_OF_A_NODE)):
        got = received(server, sampled_by_the_pack(server), flags, preview_method="latent2rgb")
        assert got[kind] == STEPS and set(got) == {"progress", kind}
    assert received(server, sampled_by_the_host(server), preview_method="latent2rgb")[PREVIEW] == STEPS  # the host's own


def test_the_report_of_a_fitted_head_is_sent_to_the_page_alone(server):
    """Others would take it for an image."""
    prompt = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in {
        "model": ("LoadReadoutDemoModel", {}),
        "words": ("CLIPTextEncode", {"clip": ["model", 1], "text": ""}),
        "scenes": ("ReadoutDemoScene", {"seed": 1, "width": 64, "height": 64, "batch_size": 4}),
        "pictures": ("VAEEncode", {"pixels": ["scenes", 0], "vae": ["model", 2]}),
        "fit": ("FitReadoutHead", {"model": ["model", 0], "latents": ["pictures", 0], "positive": ["words", 0], "image": ["scenes", 2],
                                   "kind": "depth"}),
        "report": ("PreviewAny", {"source": ["fit", 1]})}.items()}
    for flags, sent in ((None, 0), (PAGE, 1)):
        prompt["fit"]["inputs"]["seed"] = next(SEEDS)
        assert received(server, prompt, flags)[TEXT] == sent
