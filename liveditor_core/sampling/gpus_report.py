"""What a run's report says of the GPUs that it was computed on."""

import torch

import comfy.model_management

from ..model.gpu_groups import SIZE_KEY, groups_of

GIB = 2**30


class GpusOfRun:
    """Follows the memory of one run's GPUs.

    Args:
        model_options: the host's, with the copies of the model on other GPUs, if there are any.
    """

    def __init__(self, model_options):
        self.devices = list(model_options.get("multigpu_clones") or ()) or [comfy.model_management.get_torch_device()]
        self._size = model_options["transformer_options"].get(SIZE_KEY, 1)
        self._before = {}
        for device in filter(_is_gpu, self.devices):
            torch.cuda.reset_peak_memory_stats(device)
            self._before[device] = torch.cuda.memory_allocated(device)

    def describe(self, shares_heads, estimate):
        """Lines.

        Args:
            shares_heads: whether GPUs had a part of the heads each.
            estimate: bytes of what one GPU alone would take above the weights.
        """
        lines = []
        if len(self.devices) > 1:
            together = max(map(len, groups_of(self.devices, self._size)))
            how = f"each prompt on {together} of them together" if shares_heads else "each prompt on one of them"
            if self._size > 1 and not shares_heads:
                how += ", since another node patches or records the model"
            lines.append(f"GPUs: {', '.join(map(_name, self.devices))}; {how}")
        for device, before in self._before.items():
            peak = torch.cuda.max_memory_allocated(device)
            where = "the GPU" if len(self.devices) == 1 else str(device)
            lines.append(
                f"memory: peak {peak / GIB:.1f} GiB on {where}, {(peak - before) / GIB:.2f} GiB of it above "
                f"the {before / GIB:.1f} GiB that lay there before"
                + ("" if shares_heads else f", estimated {estimate / GIB:.2f} GiB")
            )
        return lines


def _is_gpu(device):
    return device.type == "cuda"


def _name(device):
    return f"{device} ({torch.cuda.get_device_name(device)})" if _is_gpu(device) else str(device)
