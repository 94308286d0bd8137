"""Prompts for a real server."""



def changed(prompt: dict, changes: dict) -> dict:
    """`changes` replace nodes or, as {node: {input: value}}, single inputs."""
    for name, change in changes.items():
        if isinstance(change, tuple):
            prompt[name] = {"class_type": change[0], "inputs": change[1]}
        else:
            prompt[name]["inputs"] |= change
    return prompt


def graph(**changes) -> dict:
    """A small guided graph in the API's form; `changes` replace nodes or, as {node: {input: value}}, single inputs."""
    nodes = {
        "model": ("LoadReadoutDemoModel", {}),
        "positive": ("CLIPTextEncode", {"clip": ["model", 1], "text": "a figure in a red shirt and blue trousers, sea"}),
        "negative": ("CLIPTextEncode", {"clip": ["model", 1], "text": ""}),
        "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "scene": ("ReadoutDemoScene", {"seed": 5, "width": 64, "height": 64, "batch_size": 1}),
        "head": ("LoadReadoutHead", {"head_name": "demo_pose.safetensors"}),
        "target": ("ReadoutPoseTarget", {"head": ["head", 0], "image": ["scene", 1], "weight": 1.0, "start_percent": 0.0,
                                         "end_percent": 0.5}),
        "sampler": ("KSamplerReadoutGuidance", {
            "model": ["model", 0], "seed": 1, "steps": 6, "cfg": 3.0, "sampler_name": "dpmpp_2m", "scheduler": "karras",
            "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "denoise": 1.0,
            "guidance": ["target", 0], "strength": 0.1}),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["model", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "test"}),
    }
    prompt = {name: {"class_type": kind, "inputs": dict(inputs)} for name, (kind, inputs) in nodes.items()}
    return changed(prompt, changes)


def odd(thing: str) -> tuple:
    return "OddInput", {"thing": thing}
