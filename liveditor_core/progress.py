"""Progress on the node that is at work, and stopping when the user says so."""

import comfy.model_management
import comfy.utils


def check(_time=None):
    """Raise the host's own exception if the run was interrupted."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def watch():
    """A function that shows how many of so many frames are done."""
    bar = comfy.utils.ProgressBar(1)

    def tick(done, total):
        check()
        bar.update_absolute(min(done, total), total)

    return tick
