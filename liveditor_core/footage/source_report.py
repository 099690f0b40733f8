"""What was found in a source video, and what is done with it, in words."""

from .geometry import unedited_border
from .source_video import SourceVideo
from .timing import is_variable, padded_frame_count

SHORTER = 0.95  # than the header says: a file that was cut off


def describe(source: SourceVideo, end) -> list[str]:
    """Lines for the report of Encode Source Video.

    Args:
        end: seconds of the clip at which its last picture ends, or None if it was not read so far.
    """
    clip = source.clip
    rate = f"{float(clip.rate):.6g} frames a second"
    if is_variable(source.stamps, clip.rate):
        rate += ", variable: every frame of the edit shows what was visible at its time"
    lines = [f"{clip.name}: " + "; ".join(clip.notes), rate]
    lines.append(
        f"edit: {source.frames} frames at {float(source.fps):.6g} a second, {source.width}x{source.height}, from "
        f"{float(source.start):.6g} s; they show {len(source.stamps)} of the clip's frames"
    )
    if added := padded_frame_count(source.frames) - source.frames:
        lines[-1] += f"; {added} added for the VAE and cut again later"
    whole, taken = clip.header_length if end is None else end, source.frames / source.fps
    if whole and whole - taken > max(1 / clip.rate, 1 / source.fps):
        lines.append(
            f"the clip lasts {float(whole):.2f} s: {float(whole - taken):.2f} s of it are left out (start, max_frames)"
        )
    border = unedited_border(clip.width, clip.height, source.width, source.height, source.fit, clip.pixel_aspect)
    if border.share:
        sides = zip(("left", "top", "right", "bottom"), border[:4], strict=True)
        lines.append(
            f"fit crop leaves {border.share:.0%} of the picture unedited ("
            + ", ".join(f"{pixels} pixels {side}" for side, pixels in sides if pixels)
            + "): choose an automatic size or fit pad to edit all of it"
        )
    if clip.errors:
        lines.append(f"damaged: {len(clip.errors)} places of the picture, the first: {clip.errors[0]}")
    if end is not None and clip.has_header and clip.header_length and end < SHORTER * clip.header_length:
        lines.append(
            f"cut off: the picture ends after {float(end):.2f} s, the header says {float(clip.header_length):.2f} s"
        )
    damage = clip.sound.damage(source.start, source.frames / source.fps) if clip.sound else ()
    if damage:
        lines.append(f"damaged: {len(damage)} places of the sound, the first: {damage[0]}")
    return lines
