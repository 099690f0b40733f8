"""What may go wrong, by what becomes of the job."""


class BatchError(Exception):
    """The batch cannot begin or go on; the message is for the user."""


class JobFailed(Exception):
    """The job is at fault: the server refused it, or a node raised. It would fail again."""


class PromptRefused(JobFailed):
    """The server accepts no such prompt.

    Args:
        message: in the nodes' own words.
        inputs: what is wrong, as (id of the node, its class, name of the input).
    """

    def __init__(self, message, inputs=()):
        super().__init__(message, inputs)
        self.inputs = [tuple(each) for each in inputs]

    def __str__(self):
        return self.args[0]


class Interrupted(Exception):
    """The job was interrupted and may go on where it was."""


class ServerDied(Exception):
    """The server ended, or said nothing for too long, with the job in it."""


class ServerDidNotStart(Exception):
    """The machine is at fault, not the job."""


class WorkerDied(Exception):
    """The worker's process ended with the job in it."""


class DiskFull(Exception):
    """No job can be done until there is room; this one is as it was."""


# What a worker's own process says by name, for exceptions do not travel well between processes and machines.
KINDS = JobFailed, PromptRefused, Interrupted, ServerDied, ServerDidNotStart, DiskFull
BY_NAME = {kind.__name__: kind for kind in KINDS}
