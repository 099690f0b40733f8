"""HDR to SDR: what PQ and HLG clips look like on an ordinary screen.

Light is taken out of the signal (BT.2100), brought under the white of an SDR screen by the curve of BT.2390, from
BT.2020's primaries to BT.709's, and coded for a screen of BT.1886.
"""

import torch

PQ, HLG = 16, 18  # transfers, of ITU-T H.273
TRANSFERS = {PQ: "PQ", HLG: "HLG"}
PEAK, WHITE = 1000.0, 203.0  # cd/m2: of what is mastered, and of SDR (BT.2408)
M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
A, B, C = 0.17883277, 0.28466892, 0.55991073
TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))


def to_sdr(picture: torch.Tensor, transfer: int) -> torch.Tensor:
    """Map HDR to SDR.

    Args:
        picture: [H, W, 3] the signal in 0..1, BT.2020.
        transfer: PQ or HLG.

    Returns:
        [H, W, 3] in 0..1, BT.709.
    """
    light = pq_to_light(picture) if transfer == PQ else hlg_to_light(picture)
    brightest = light.amax(dim=-1, keepdim=True).clamp_(1e-4, PEAK)
    light = light * (pq_to_light(roll_off(light_to_pq(brightest))) / brightest)
    linear = light @ light.new_tensor(TO_BT709).T / WHITE
    return linear.clamp_(0, 1).pow_(1 / 2.4)


def roll_off(signal):
    """The curve of BT.2390: PQ of light up to PEAK to PQ of light up to WHITE, unchanged where it is dark."""
    peak, white = (float(light_to_pq(torch.tensor(value))) for value in (PEAK, WHITE))
    top = white / peak
    knee = 1.5 * top - 0.5
    x = signal / peak
    t = ((x - knee) / (1 - knee)).clamp(0, 1)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return torch.where(x < knee, x, bent) * peak


def pq_to_light(signal):
    """Signal in 0..1 to cd/m2."""
    power = signal.clamp(0, 1) ** (1 / M2)
    return 10000 * ((power - C1).clamp(min=0) / (C2 - C3 * power)) ** (1 / M1)


def light_to_pq(light):
    power = (light.clamp(min=0) / 10000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def hlg_to_light(signal):
    """Signal in 0..1 to cd/m2 on a screen of PEAK."""
    scene = torch.where(signal <= 0.5, signal**2 / 3, (torch.exp((signal - C) / A) + B) / 12)
    luma = scene @ scene.new_tensor((0.2627, 0.6780, 0.0593))
    return PEAK * scene * luma.clamp(min=1e-6).pow(0.2).unsqueeze(-1)
