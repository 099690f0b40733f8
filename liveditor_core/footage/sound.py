"""Sound that goes with a part of a video."""


def audio_window(audio: dict | None, start: float, seconds: float) -> dict | None:
    """The part of an AUDIO from `start` that lasts `seconds`."""
    if audio is None:
        return None
    rate = audio["sample_rate"]
    first = round(start * rate)
    return {**audio, "waveform": audio["waveform"][..., first : first + round(seconds * rate)]}
