"""What a guided run must leave as it was."""
import torch


def state(graph) -> list:
    unet = graph.model.model.diffusion_model
    return [(name, id(p)) for name, p in unet.named_parameters()] + [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules()]


def checked(graph) -> torch.Tensor:
    """What every feature must keep; returns the guided latents."""
    unguided = graph.run(False)
    before, values = state(graph), {k: v.float().clone() for k, v in graph.model.model.diffusion_model.state_dict().items()}
    guided = graph.run()
    assert torch.isfinite(guided).all() and not torch.equal(guided, unguided)
    assert torch.equal(guided, graph.run())
    assert state(graph) == before and torch.equal(unguided, graph.run(False))
    assert all(torch.equal(v.float(), values[k]) for k, v in graph.model.model.diffusion_model.state_dict().items())
    return guided


def close(one: torch.Tensor, two: torch.Tensor) -> bool:
    """As far as a network of random weights lets rounding be."""
    return ((one - two).norm() / two.norm()).item() < 1e-3
