"""A call of the model on several GPUs at once, as a group of them computes a prompt.

The copies of the model are the host's, as *MultiGPU CFG Split* makes them, and so are the threads: it patches, loads
and frees them. Here they are put into groups, each of which computes the prompts that the host gives to its first GPU.
"""

import contextlib
import threading
from typing import NamedTuple

import torch

from ..attention.observers import RECORD_KEY, RUN_KEY
from .finite import SUMS_KEY
from .shared_tokens import Meeting, Seat

SIZE_KEY = "liveditor_gpus_for_a_prompt"  # in transformer_options: how many there may be in a group
GROUPS_KEY = "liveditor_gpu_groups"  # there during a call: the groups by their first GPU


class Group(NamedTuple):
    """GPUs that compute together."""

    devices: tuple
    patchers: tuple  # the host's, with the model's copy on each
    pool: object  # the host's MultiGPUThreadPool

    def together(self, function):
        """Call a function on every GPU of the group at once, in a thread for each; here on the first.

        Args:
            function: of the transformer's copy, the Seat and the device.

        Returns:
            The answers, in order.

        Raises:
            What the first of them raised that did not only miss the others.
        """
        meeting, parties = Meeting(len(self.devices)), len(self.devices)
        inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def on(rank):
            try:
                # Both belong to a thread.
                with torch.inference_mode(inference), torch.set_grad_enabled(grad and not inference):
                    transformer = self.patchers[rank].model.diffusion_model
                    return function(transformer, Seat(rank, parties, meeting), self.devices[rank])
            except BaseException:
                meeting.give_up()
                if self.devices[rank].type == "cuda":  # copies may still be on their way into what is let go now
                    with contextlib.suppress(Exception):
                        torch.cuda.synchronize(self.devices[rank])
                raise

        others = range(1, parties)
        # A thread that could not take its GPU answers with that at once, without a call: nobody shall wait for it.
        for rank in others:
            self.pool.submit(self.devices[rank], bool)
        for _, failure in [self.pool.get_result(self.devices[rank]) for rank in others]:
            if failure is not None:
                raise failure
        for rank in others:
            self.pool.submit(self.devices[rank], on, rank)
        errors, answers, failure = [], [], None
        try:
            answers.append(on(0))
        except BaseException as error:
            errors.append(error)
        for rank in others:  # all end before this does: they use what the caller frees
            answer, failure = self.pool.get_result(self.devices[rank])
            answers.append(answer)
            errors += [] if failure is None else [failure]
        errors.sort(key=lambda each: isinstance(each, threading.BrokenBarrierError))
        try:
            if errors:
                raise errors[0]
        finally:
            meeting.end()  # the pool's threads keep what they called last
            del errors, failure  # an error holds this frame: it would be there, with all tensors of the call, until gc
        return answers


def group_of_call(transformer_options, x) -> Group | None:
    """The group that computes a call on x; None where one GPU does."""
    groups = transformer_options.get(GROUPS_KEY)
    if not groups:
        return None
    return groups.get(transformer_options.get("multigpu_thread_device", x.device))


def is_watched(transformer_options):
    """Whether somebody wants to see every head of a block, or all of its tokens."""
    return RECORD_KEY in transformer_options or SUMS_KEY in transformer_options


def options_of_another(transformer_options, device):
    """What a call on another GPU of a group goes by: nobody follows it there."""
    options = {key: value for key, value in transformer_options.items() if key not in (RUN_KEY, GROUPS_KEY)}
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in options.items()}


def groups_of(devices, size):
    """GPUs in groups of so many, the last may have fewer.

    A plan for two prompts: with four GPUs in groups of two each prompt gets one.
    """
    return [tuple(devices[first : first + size]) for first in range(0, len(devices), size)]
