"""The host's hook for context windows, with LIVEditor's source sliced along and windows of `windows.py`."""

import torch

from comfy.context_windows import ContextHandlerABC

from ..model.registration import SOURCE_KEY
from ..progress import check
from .windows import TIME, Window

HANDLER = "context_handler"  # where the host looks for it in a MODEL's options


class WindowHandler(ContextHandlerABC):
    """Predicts a whole latent window by window, in every step anew.

    Args:
        windows: of `plan_windows`.
        each: called after every window with its number, and the prediction and the latent of its frames.
        keeper: a `Keeper`, which may hold the windows of a step that was not finished; or None.
    """

    dim = TIME  # this and the next are read by the host's estimate of memory

    def __init__(self, windows: list[Window], each, keeper=None):
        self.windows, self._each, self._keeper = windows, each, keeper
        self.context_length = max(len(window.indices) for window in windows)
        self._caches, self._level = {}, None

    def should_use_context(self, model, conds, x_in, timestep, model_options):
        return True

    def execute(self, calc_cond_batch, model, conds, x_in, timestep, model_options):
        """The prediction for every conditioning.

        Args:
            calc_cond_batch: the host's, for one window.
            conds: per conditioning a list of the host's dicts, or None.
            x_in: [B, 16, frames and the windows' own first frames, H, W].

        Returns:
            A list of tensors like `x_in`.
        """
        # Some nodes, as SkipLayerGuidance, call the model once more in a step: of that nothing is kept or shown.
        again = self._level is not None and torch.equal(timestep, self._level)
        self._level, keeper = timestep.clone(), None if again else self._keeper
        done, sums = 0, [torch.zeros_like(x_in) for _ in conds]
        if keeper is not None:
            done, sums = keeper.unfinished_step(sums)
        for number, window in enumerate(self.windows[done:], done):
            check()
            indices = window.indices.to(x_in.device)
            x = x_in.index_select(TIME, indices)
            answers = calc_cond_batch(
                model,
                [self.get_resized_cond(cond, x_in, window) for cond in conds],
                x,
                timestep,
                self._with_own_cache(model, model_options, number),
            )
            shares = window.shares.to(x_in).view(-1, 1, 1)
            parts = [answer * shares for answer in answers]  # what may fail, before anything is added
            for total, part in zip(sums, parts, strict=True):
                total.index_add_(TIME, indices, part)
            if keeper is not None:
                keeper.window_done(number + 1, sums)
            if not again:
                self._each(number, answers[0], x)
        return sums

    def get_resized_cond(self, cond_in, x_in, window, device=None):
        """The conditionings of a window: those that say nothing about its frames are left out."""
        if cond_in is None:
            return None
        cut = (_cut(cond, window.indices, x_in.shape[TIME]) for cond in cond_in)
        return [cond for cond in cut if cond is not None]

    def _with_own_cache(self, model, model_options, number):
        """*EasyCache* keeps what changed since the last step of the same frames: every window needs one of its own."""
        options = model_options["transformer_options"]
        cache = options.get("easycache")
        if cache is None:
            return model_options
        if number not in self._caches:
            own = cache if number == 0 else cache.clone().prepare_timesteps(model.model_sampling)
            self._caches[number] = own
        return model_options | {"transformer_options": options | {"easycache": self._caches[number]}}


def _cut(cond, indices, frames):
    out = cond.copy()
    mask = cond.get("mask")
    if mask is not None and mask.dim() == 4 and mask.shape[1] == frames:  # else one for all frames
        out["mask"] = mask.index_select(1, indices.to(mask.device))
        if not out["mask"].any():
            return None
    source = cond["model_conds"][SOURCE_KEY]
    sliced = source._copy_with(source.cond.index_select(TIME, indices.to(source.cond.device)))
    out["model_conds"] = cond["model_conds"] | {SOURCE_KEY: sliced}
    return out
