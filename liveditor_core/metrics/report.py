"""What was measured, in lines for people."""

from .changed import VISIBLE

SHOWN = 12  # characters of a hash


def report(summary: dict) -> str:
    """Of the summary of Numbers; beside each number what an unedited copy of the source would score."""
    compared, copy = summary["compared"], summary["unedited_copy"]
    lines = [
        f"{compared['frames']} pairs of frames by time, {compared['fps']:.5g} a second, {compared['width']}x"
        f"{compared['height']}; in brackets what an unedited copy of the source would score",
        *(f"note: {note}" for note in summary["notes"]),
        "",
        *_gate(summary["gate"]),
        *_kept(summary["kept"]),
        *_changed(summary["changed"], compared["masked"]),
        *_steady(summary["steady"], copy["steady"]),
        *(_flow(summary["flow"]) if summary["flow"] else ("flow: not measured (no OPTICAL_FLOW)",)),
        *(_words(summary["words"]) if summary["words"] else ("words: not measured (no CLIP_VISION)",)),
        *(f"{file['used_as']}: {file['name']}, sha256 {file['sha256'][:SHOWN]}" for file in summary["models"]),
    ]
    return "\n".join(lines)


def headline(summary: dict) -> dict:
    """The numbers that say most, for the canvas."""
    kept, changed, words, flow = (summary[name] for name in ("kept", "changed", "words", "flow"))
    masked = summary["compared"]["masked"]
    return {
        "masked": masked,
        "share": changed["inside" if masked else "whole_frame"]["share"],
        "psnr": kept["psnr"],
        "identical": kept["identical"],
        "ssim": kept["ssim"],
        "excess": summary["steady"]["excess"],
        "gain": words and words["gain"],
        "similarity": flow and flow["similarity"],
        "kept_if_edited": summary["gate"]["kept_if_edited"],
    }


def _gate(gate):
    yield (
        f"kept if edited: {_plain(gate['kept_if_edited'])} [0] (SSIM x gate; gate {gate['gate']:.3f} = changed "
        f"{gate['changed']:.3f}" + ("" if gate["words"] is None else f" x words {gate['words']:.3f}") + ")"
    )


def _kept(kept):
    whole = kept["whole_frame"]
    yield (
        f"kept, {kept['part']}: PSNR {_psnr(kept)} [identical], SSIM {_plain(kept['ssim'])} [1], bit for bit "
        f"{kept['exact_pixels']} of {kept['pixels']} pixels, {_percent(kept['exact'])} [100 %]"
    )
    yield f"whole frames: PSNR {_psnr(whole)} [identical], SSIM {_plain(whole['ssim'])} [1]"


def _changed(changed, masked):
    for part in ("whole_frame", "inside", "outside") if masked else ("whole_frame",):
        mean, share, edited = changed[part].values()
        where = part.replace("_", " ") + ("" if part == "whole_frame" else " the mask")
        if mean is None:
            yield f"changed, {where}: there is no pixel"
        else:
            yield (
                f"changed, {where}: {mean:.2f} levels of 255 on average [0], by more than {VISIBLE} in "
                f"{_percent(share)} of the pixels [0 %]; edited: {_percent(edited)} [0 %]"
            )


def _steady(steady, copy):
    if steady["excess"] is None:
        yield "steady: not measured (a single frame)"
        return
    first, second = steady["worst_pair"]
    yield (
        f"steady: flicker {steady['flicker_edit']:.2f} levels [{copy['flicker_edit']:.2f}], beyond the source's "
        f"{steady['excess']:+.2f} [+0.00]; worst from frame {first} to {second}, {steady['worst_excess']:+.2f}"
    )


def _flow(flow):
    if flow["motion_edit"] is None:
        yield "flow: not measured (a single frame)"
        return
    errors = [None if flow[name] is None else 1000 * flow[name] for name in ("warp_error_edit", "warp_error_source")]
    yield f"flow: warp error {_plain(errors[0])} / 1000 [{_plain(errors[1])}], seen in both " + _percent(
        flow["seen_in_both"]
    )
    similar = "cannot be said, nothing moves" if flow["similarity"] is None else f"{flow['similarity']:.3f} [1]"
    yield (
        f"flow: similarity {similar}; motion {flow['motion_edit']:.2f} pixels a frame [{flow['motion_source']:.2f}], "
        f"apart {flow['motion_apart']:.2f} [0]" + _every(flow)
    )


def _words(words):
    if words["text_edit"] is None:
        yield "words: not measured (no CLIP, or no target text)"
    else:
        yield f'words: "{words["target"]}"'
        yield (
            f"words: cosine of text and frame {words['text_edit']:.4f} [{words['text_source']:.4f}], gain "
            f"{words['gain']:+.4f} [+0.0000]" + _every(words)
        )
        if words["direction"] is not None:
            yield f'words: direction from "{words["source_text"]}" {words["direction"]:+.4f} [+0.0000]'
        if words["score_edit"] is not None:
            yield (
                f"words: score {words['score_edit']:.2f} [{words['score_source']:.2f}], gain "
                f"{words['score_gain']:+.2f} [+0.00] (PickScore if both models are PickScore's)"
            )
    if words["consistency_edit"] is not None:
        yield (
            f"frames: cosine of neighbours {words['consistency_edit']:.4f} [{words['consistency_source']:.4f}]"
            + _every(words)
        )


def _every(numbers):
    return "" if numbers["every"] == 1 else f"; of every {numbers['every']}th frame"


def _psnr(kept):
    if not kept["pixels"]:
        return "of no pixel"
    return "identical" if kept["identical"] else f"{kept['psnr']:.2f} dB"


def _plain(value):
    return "not measured" if value is None else f"{value:.4f}"


def _percent(share):
    return "none" if share is None else f"{100 * share:.2f} %"
