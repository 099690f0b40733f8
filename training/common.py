"""What both trainings share: a clock, averaged weights, files. Import it before anything of ComfyUI."""

import contextlib
import os
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import comfy.options  # noqa: F401  (keeps ComfyUI off this program's command line)
from comfy.cli_args import args

args.cpu = not torch.cuda.is_available()

CLIP = Path(os.environ.get("LIVEDITOR_CLIPS", "."), "bigbuckbunny.mp4")


class Clock:
    """A training lasts so many minutes or steps, whichever ends first.

    The learning rate follows the share that is over.
    """

    def __init__(self, minutes, steps):
        self.start, self.seconds, self.steps, self.step = time.monotonic(), minutes * 60, steps, 0

    def elapsed(self):
        return time.monotonic() - self.start

    def share(self):
        return min(1.0, max(self.elapsed() / self.seconds, self.step / self.steps))

    def __iter__(self):
        while self.share() < 1:
            yield self.step
            self.step += 1

    def learning_rate(self, peak, warmup=200, hold=0.4):
        """Linear warm-up, constant, then down to nothing in a straight line."""
        return peak * min(1.0, (self.step + 1) / warmup) * min(1.0, max(0.0, 1 - self.share()) / (1 - hold))


class Average:
    """Exponential moving average of a module's parameters and buffers, on its device."""

    def __init__(self, module, decay):
        self.decay, self.steps = decay, 0
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module):
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        state = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
        torch._foreach_lerp_([self.values[name] for name in state], list(state.values()), 1 - decay)


class Replayed:
    """A function of tensors, recorded once as a CUDA graph per key and then replayed, so that no step waits for Python.

    The function must return one tensor and decide nothing by a tensor's value. On the CPU it is simply called.
    """

    def __init__(self, function):
        self.function, self.graphs = function, {}
        self.pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None

    def __call__(self, *tensors, key=None):
        if self.pool is None:
            return self.function(*tensors, key)
        shapes = (key, *(x.shape for x in tensors))
        if shapes not in self.graphs:
            self.graphs[shapes] = self._record(tensors, key)
        graph, inputs, output = self.graphs[shapes]
        for mine, given in zip(inputs, tensors, strict=True):
            mine.copy_(given, non_blocking=True)
        graph.replay()
        return output.clone()

    def _record(self, tensors, key):
        inputs = [x.clone() for x in tensors]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up and kernels are compiled before the recording
            for _ in range(3 if not self.graphs else 1):
                self.function(*inputs, key)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            output = self.function(*inputs, key)
        return graph, inputs, output


def adam(groups, betas):
    """AdamW whose learning rate is a tensor on the device, set by `set_learning_rate`, so that a recorded step reads
    it.
    """
    rate = torch.zeros((), device=device())
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True, capturable=torch.cuda.is_available())


def set_learning_rate(optimiser, value):
    for group in optimiser.param_groups:
        group["lr"].fill_(value)


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision():
    """bf16 matrix products on a GPU; fp32 elsewhere."""
    return (
        torch.autocast("cuda", torch.bfloat16, cache_enabled=False)
        if torch.cuda.is_available()
        else contextlib.nullcontext()
    )


def save(path, weights, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path, metadata)


def initialise(module):
    """The host's layers start uninitialised: normal weights that keep the variance, zero biases."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim > 1 and parameter.shape[1:].numel() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
