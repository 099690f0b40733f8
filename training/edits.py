"""What the small model learns: edits that can be computed exactly, and how people ask for them.

Every edit maps frames [..., 3, H, W] in [0, 1] to frames of the same shape. `PHRASES` are trained on, `HELD_OUT`
never are.
"""

import torch

from liveditor.liveditor_core.model.known_words import words_of

LUMA = (0.299, 0.587, 0.114)
SEPIA = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))
NIGHT = (0.16, 0.26, 0.55)
RED = (0.85, 0.05, 0.05)
BORDER = 16  # a border is one part in so many of the height
CELL = 16  # pixels


def _channels(values, x):
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(3, 1, 1)


def luma(x):
    return (x * _channels(LUMA, x)).sum(dim=-3, keepdim=True)


def black_and_white(x):
    return luma(x).expand_as(x)


def invert(x):
    return 1 - x


def sepia(x):
    return torch.einsum("oc,...chw->...ohw", torch.tensor(SEPIA, dtype=x.dtype, device=x.device), x).clamp(0, 1)


def night(x):
    return (x + luma(x)) * _channels(NIGHT, x) / 2


def mirror(x):
    return x.flip(-1)


def upside_down(x):
    return x.flip(-2)


def red_border(x):
    width = max(1, x.shape[-2] // BORDER)
    out = _channels(RED, x).expand_as(x).clone()
    inside = (..., slice(width, -width), slice(width, -width))
    out[inside] = x[inside]
    return out


def pixelate(x):
    frames = x.flatten(0, -4) if x.ndim > 4 else x
    means = torch.nn.functional.avg_pool2d(frames, CELL, ceil_mode=True, count_include_pad=False)
    return means.repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)[..., : x.shape[-2], : x.shape[-1]].view_as(x)


def brighter(x):
    return 1 - (1 - x) ** 2


def swap_red_and_blue(x):
    return x.flip(-3)


EDITS = {
    f.__name__: f
    for f in (
        black_and_white,
        invert,
        sepia,
        night,
        mirror,
        upside_down,
        red_border,
        pixelate,
        brighter,
        swap_red_and_blue,
    )
}

PHRASES = {
    "black_and_white": (
        "make it black and white",
        "turn the video black and white",
        "convert to black and white",
        "make it grayscale",
        "make the clip greyscale",
        "convert the video to grayscale",
        "remove all colour",
        "remove the colors",
        "take away the color",
        "make it monochrome",
        "turn it into a monochrome film",
        "desaturate the video",
        "desaturate everything",
        "show it in shades of grey",
        "only shades of gray",
        "drop the colour",
        "make everything gray",
        "like an old black and white movie",
        "no color at all",
        "strip the colours from the video",
        "black-and-white version",
        "give it a black and white look",
    ),
    "invert": (
        "invert the colours",
        "invert the colors",
        "invert all colors",
        "make a negative",
        "turn it into a photo negative",
        "show the negative of the video",
        "make the colours negative",
        "reverse the colors",
        "invert the video",
        "flip the colors to their opposites",
        "swap dark and light",
        "make dark parts light and light parts dark",
        "negative film effect",
        "replace every color by its complement",
        "opposite colours",
        "make it look like a film negative",
        "complementary colors",
        "invert everything",
        "turn white into black and black into white",
        "apply an inverted color effect",
    ),
    "sepia": (
        "make it sepia",
        "warm sepia",
        "apply a sepia tone",
        "give it a warm sepia tone",
        "make it look like an old photograph",
        "turn it into an old brown photo",
        "brownish vintage look",
        "make it look vintage",
        "apply a vintage filter",
        "antique brown tint",
        "sepia filter",
        "make the video sepia toned",
        "old-time sepia film",
        "give the clip a warm brown tone",
        "tint it brown",
        "add a nostalgic brown tint",
        "make it look like an aged photo",
        "warm old photo style",
        "vintage sepia effect",
        "nostalgic sepia look",
    ),
    "night": (
        "make it night",
        "turn day into night",
        "make it dark and blue",
        "change it to night time",
        "set the scene at night",
        "make it look like night",
        "night scene",
        "make it a dark blue night",
        "moonlit night",
        "let it be midnight",
        "turn the scene into night",
        "make it nighttime",
        "darken it to a blue night",
        "make the scene dark like at night",
        "as if filmed at night",
        "show it after dark",
        "moonlight",
        "make it look like it was shot at midnight",
        "day to night",
        "dark night with blue light",
    ),
    "mirror": (
        "mirror it",
        "mirror the video",
        "mirror left and right",
        "flip it horizontally",
        "flip the video horizontally",
        "swap left and right",
        "horizontal flip",
        "mirror image",
        "reflect it left to right",
        "reverse left and right",
        "flip left to right",
        "mirror the scene horizontally",
        "make a mirror image",
        "turn left into right",
        "show it as in a mirror",
        "horizontally flipped",
        "flip the picture sideways",
        "reflect the video horizontally",
        "mirror left-right",
        "flip it along the vertical axis",
    ),
    "upside_down": (
        "turn it upside down",
        "flip it upside down",
        "make it upside down",
        "flip it vertically",
        "flip the video vertically",
        "vertical flip",
        "upside down",
        "turn the picture on its head",
        "put the top at the bottom",
        "swap top and bottom",
        "flip top to bottom",
        "reverse top and bottom",
        "vertically flipped",
        "show the scene upside down",
        "turn the video on its head",
        "mirror it vertically",
        "flip the picture over vertically",
        "reflect top to bottom",
        "make the ground be at the top",
        "bottom up",
    ),
    "red_border": (
        "add a red border",
        "put a red frame around it",
        "draw a red border",
        "add a red frame",
        "put a red border around the video",
        "frame it in red",
        "surround it with a red border",
        "give it a red frame",
        "red border",
        "red edge around the picture",
        "add a red outline around the frame",
        "make the edges red",
        "put a red edge around the clip",
        "a thick red border",
        "draw a red rectangle around the video",
        "paint the border red",
        "colour the frame edges red",
        "with a red border",
        "enclose the picture in a red frame",
        "add red edges",
    ),
    "pixelate": (
        "pixelate it",
        "pixelate the video",
        "make it pixelated",
        "make it blocky",
        "turn it into big pixels",
        "apply a mosaic",
        "mosaic effect",
        "make a mosaic of it",
        "show it in big squares",
        "make it look like a retro video game",
        "reduce it to large pixels",
        "low resolution blocks",
        "pixel art style",
        "censor it with a mosaic",
        "make everything blocky",
        "pixelation effect",
        "turn the picture into coarse blocks",
        "make it look like 8 bit pixel art",
        "large square pixels",
        "lower the resolution to big blocks",
    ),
    "brighter": (
        "make it brighter",
        "brighten the video",
        "brighten it",
        "increase the brightness",
        "more light",
        "make it lighter",
        "lighten the scene",
        "turn up the brightness",
        "add more light",
        "make the picture brighter",
        "light it up",
        "raise the exposure",
        "increase exposure",
        "overexpose it a bit",
        "much brighter please",
        "make everything brighter",
        "brighter",
        "brighten up the scene",
        "give it more light",
        "make it bright",
    ),
    "swap_red_and_blue": (
        "swap red and blue",
        "swap the red and blue channels",
        "exchange red and blue",
        "switch red and blue",
        "make red things blue and blue things red",
        "turn red into blue and blue into red",
        "swap blue and red",
        "exchange the red and blue channels",
        "switch the blue and red channels",
        "red becomes blue and blue becomes red",
        "interchange red and blue",
        "swap the colours red and blue",
        "replace red by blue and blue by red",
        "trade red for blue and blue for red",
        "BGR instead of RGB",
        "swap channels red and blue",
        "change red to blue and blue to red",
        "reverse red and blue",
        "let red and blue change places",
        "what is red becomes blue and the other way round",
    ),
}

HELD_OUT = {
    "black_and_white": (
        "turn it into a black and white film",
        "make the whole video grayscale",
        "take all the colour out of it",
        "convert this clip to monochrome",
        "show the whole clip in black and white",
    ),
    "invert": (
        "make it a colour negative",
        "invert every colour in the video",
        "give me the negative of this clip",
        "show all colours as their opposites",
        "turn all the colours into their negatives",
    ),
    "sepia": (
        "give the whole video a sepia look",
        "make it look like an old sepia photo",
        "apply a warm vintage brown tone",
        "add a sepia effect to this clip",
        "tint the whole picture with sepia",
    ),
    "night": (
        "make it look as if it was night",
        "change the scene to a dark blue night",
        "turn it into a night scene",
        "put it in moonlight at midnight",
        "make the whole scene look like the middle of the night",
    ),
    "mirror": (
        "flip the whole clip horizontally",
        "make it a mirror image of itself",
        "exchange left and right",
        "mirror the picture from left to right",
        "flip the scene from left to right",
    ),
    "upside_down": (
        "flip the whole clip upside down",
        "turn the scene on its head",
        "make the picture vertically flipped",
        "put the bottom at the top",
        "show the whole video upside down",
    ),
    "red_border": (
        "surround the video with a red frame",
        "add a thick red border around the picture",
        "draw red edges around the clip",
        "enclose it in a red border",
        "put a thick red frame around the clip",
    ),
    "pixelate": (
        "make the whole clip pixelated",
        "turn the video into a mosaic of big squares",
        "show everything in large blocks",
        "give it a blocky pixel look",
        "turn the whole picture into big blocky pixels",
    ),
    "brighter": (
        "make the whole clip brighter",
        "raise the brightness of the scene",
        "the video should be brighter",
        "lighten up the picture",
        "turn the brightness of the clip up",
    ),
    "swap_red_and_blue": (
        "exchange the colours red and blue",
        "let red become blue and blue become red",
        "switch the red and blue colours",
        "swap the blue channel with the red one",
        "make the blue parts red and the red parts blue",
    ),
}

LOOKS = {  # what completes any of FORMS
    "black_and_white": (
        "black and white",
        "black-and-white",
        "grayscale",
        "greyscale",
        "monochrome",
        "colourless",
        "colorless",
        "grey",
        "gray",
    ),
    "invert": ("negative", "inverted", "color inverted", "colour negative", "photo negative", "inverse"),
    "sepia": (
        "sepia",
        "warm sepia",
        "sepia toned",
        "brown vintage",
        "old brown",
        "warm brown",
        "sepia tinted",
        "vintage",
    ),
    "night": ("dark blue night", "night time", "moonlit", "night", "moonlit night", "midnight", "dark and blue"),
    "mirror": (
        "mirrored",
        "horizontally flipped",
        "left-right flipped",
        "mirror image",
        "horizontally mirrored",
        "sideways flipped",
    ),
    "upside_down": ("upside down", "upside-down", "vertically flipped", "top to bottom flipped", "vertically mirrored"),
    "red_border": ("red bordered", "red framed", "red edged"),
    "pixelate": ("pixelated", "blocky", "mosaic", "pixel art", "coarse pixel", "big pixel"),
    "brighter": ("brighter", "much brighter", "lighter", "bright", "brightened", "well lit"),
    "swap_red_and_blue": ("red and blue swapped", "blue and red swapped", "red-blue swapped", "red and blue exchanged"),
}
FORMS = (
    "{look}",
    "make the {thing} {look}",
    "make this {thing} {look}",
    "turn the {thing} {look}",
    "a {look} {thing}",
    "make it a {look} {thing}",
    "turn it into a {look} {thing}",
    "turn this into a {look} {thing}",
    "I want a {look} {thing}",
    "convert the {thing} to {look}",
    "change the {thing} to {look}",
    "change it to {look}",
    "make it look {look}",
    "give it a {look} look",
    "give the {thing} a {look} look",
    "a {look} version of the {thing}",
    "apply a {look} effect to the {thing}",
    "{look} style",
    "the {thing} should be {look}",
)
THINGS = (
    "video",
    "clip",
    "film",
    "movie",
    "picture",
    "scene",
    "footage",
    "image",
    "shot",
    "recording",
    "whole video",
    "whole film",
    "entire clip",
)
SHARE_OF_FORMS = 50  # percent of instructions
SPOKEN_FOR = {phrase.lower() for phrases in HELD_OUT.values() for phrase in phrases}

BEFORE = ("", "", "", "", "please ", "can you ", "could you ", "now ", "I want you to ", "just ")
AFTER = (
    "",
    "",
    "",
    "",
    " please",
    " in this video",
    " for the whole clip",
    " everywhere",
    " from start to end",
    " in every frame",
)
JOIN = (" and ", ", then ", " and then ", ", and also ", " and also ", "; ", ". then ")


def ask(names, choose):
    """An instruction for one edit or several, in the words of the training.

    Args:
        names: names of edits, in the order in which they are applied.
        choose: callable that picks one of a sequence, such as `random.choice`.
    """
    parts = [_phrase(name, choose) for name in names]
    text = parts[0]
    for part in parts[1:]:
        text += choose(JOIN) + part
    return choose(BEFORE) + text + choose(AFTER) + choose(("", "", "."))


def _phrase(name, choose):
    if choose(range(100)) >= SHARE_OF_FORMS:
        return choose(PHRASES[name])
    phrase = choose(FORMS).format(look=choose(LOOKS[name]), thing=choose(THINGS))
    return choose(PHRASES[name]) if phrase.lower() in SPOKEN_FOR else phrase


def all_sentences(choose):
    """Every phrase and every form with every look, as (edit, sentence); of THINGS each form gets one."""
    phrases = [(name, phrase) for name, group in PHRASES.items() for phrase in group]
    forms = [
        (name, form.format(look=look, thing=choose(THINGS)))
        for name, looks in LOOKS.items()
        for look in looks
        for form in FORMS
    ]
    return phrases + [(name, sentence) for name, sentence in forms if sentence.lower() not in SPOKEN_FOR]


def words() -> list[str]:
    """Every word of the training's instructions, sorted."""
    groups = (
        *PHRASES.values(),
        *LOOKS.values(),
        THINGS,
        BEFORE,
        AFTER,
        JOIN,
        [form.format(look="", thing="") for form in FORMS],
    )
    return sorted(words_of(" ".join(text for group in groups for text in group)))


def apply(names, x):
    for name in names:
        x = EDITS[name](x)
    return x
