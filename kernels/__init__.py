"""The operations of in-context sparse attention, each in several backends of one signature.

`dispatch.backend_for` chooses; `reference` defines what every operation means.
"""

from .dispatch import BackendUnavailable, backend_for

__all__ = ["BackendUnavailable", "backend_for"]
