"""What can be wrong with footage."""


class FootageError(ValueError):
    """A video cannot be used; the message says why and what to do, without the name of the node."""


class SourceChanged(FootageError):
    """A file is no longer what was read of it before."""
