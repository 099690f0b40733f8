"""What sparse attention chose during a run, recorded and shown."""
