"""The method: in-context sparse attention, its settings, and a record of what it chose."""
