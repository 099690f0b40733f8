"""Video in and out: reading, sizes, frame rates, sound, masks."""
