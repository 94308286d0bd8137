"""ControlNets under autograd."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DetachedControl:
    """A ControlNet or T2I-Adapter whose hints are given: the gradient takes the way through the diffusion model alone.

    What adapters make of their hints they keep, and use it for another number of images too, where it does not fit; so it is kept here by that."""

    def __init__(self, control):
        self.control = control
        self.kept: dict[int, list[tuple]] = {}
        self.elsewhere: dict[torch.device, DetachedControl] = {}

    def get_control(self, x_noisy, *args, **kwargs):
        with torch.no_grad(), self.own_hints(len(x_noisy)):
            return self.control.get_control(x_noisy, *args, **kwargs)

    def get_instance_for_device(self, device: torch.device) -> "DetachedControl":
        """That of another card, where the host shares a MODEL's work among several."""
        there = self.control.get_instance_for_device(device)
        return self if there is self.control else self.elsewhere.setdefault(device, DetachedControl(there))

    @contextmanager
    def own_hints(self, count: int) -> Iterator[None]:
        adapters = [c for c in in_a_row(self.control) if hasattr(c, "control_input")]
        before = [(adapter.cond_hint, adapter.control_input) for adapter in adapters]
        for adapter, own in zip(adapters, self.kept.get(count, [(None, None)] * len(adapters))):
            adapter.cond_hint, adapter.control_input = own
        try:
            yield
        finally:
            self.kept[count] = [(adapter.cond_hint, adapter.control_input) for adapter in adapters]
            for adapter, others in zip(adapters, before):
                adapter.cond_hint, adapter.control_input = others


def in_a_row(control) -> list:
    """`control` and those before it."""
    return [] if control is None else [control, *in_a_row(getattr(control, "previous_controlnet", None))]
