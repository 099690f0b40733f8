// What the settings of sparse attention leave to compute, and windows: the same counts as
// liveditor_core/attention/config.py and liveditor_core/sampling/windows.py, for the canvas.

const BLOCK = 64;
const LARGEST_OF = { "auto 540p": [960, 544], "auto 480p": [832, 480], "auto small model": [256, 112] };
// Attention takes this much of a dense step per token, in parts of all else: 9.1 against 3.3 s at 85,680 tokens
// on an H200.
const ATTENTION_PER_TOKEN = 9.1 / 3.3 / 85680;
// Choosing and moving blocks, in parts of the attention that is left: 2.92 s measured where the count says 0.303
// of 9.1.
const OVERHEAD = 1.06;

export const RELEASED = { sar: 0.0625, srr: 0.125, flat_ratio: 0.5 };
export const PRESETS = {
  Released: RELEASED,
  Faster: { sar: 0.0625, srr: 0.125, flat_ratio: 0.25 },
  "Small model": { sar: 0.25, srr: 1, flat_ratio: 0.5 },
  Finest: { sar: 0.125, srr: 0.25, flat_ratio: 0.75 },
};

const TRAINED = { window: 81, overlap: 16, frames: 81 };

/**
 * The windows in which a clip is sampled: how many, and the frames of the longest. Where the sampler would refuse the
 * overlap, the whole clip.
 */
export function windowsOf(frames, { window, overlap } = TRAINED) {
  const clip = latentFrames(frames), most = Math.floor((window - 1) / 4) + 1, shared = Math.ceil(overlap / 4);
  if (clip <= most || most - 1 - shared < 1) return { count: 1, frames };
  const longest = (count) => Math.ceil((clip + (count - 1) * (shared + 1)) / count); // with a first frame of its own
  let count = 2;
  while (longest(count) > most) count++;
  return { count, frames: 4 * (longest(count) - 1) + 1 };
}

/** `frames` are padded to 4n + 1, as the VAE wants it. */
function latentFrames(frames) {
  return Math.ceil((frames - 1) / 4) + 1;
}

/** Tokens of one stream. */
export function targetTokens({ width, height, frames }) {
  return latentFrames(frames) * Math.ceil(width / 16) * Math.ceil(height / 16);
}

/** Share of dense attention's multiply-adds that is left, for as many source as target tokens. */
export function denseFraction({ sar, srr, flat_ratio, backend }, target) {
  const blocks = Math.ceil((2 * target) / BLOCK);
  const targetBlocks = Math.floor(target / BLOCK);
  if (backend === "dense" || targetBlocks === 0) return 1;
  const kept = srr > 0 ? Math.max(1, Math.trunc((blocks - targetBlocks) * srr)) : 0;
  const kv = Math.ceil(target / BLOCK) + kept;
  const exact = Math.max(1, Math.trunc(kv * sar));
  const dense = Math.trunc(blocks * flat_ratio);
  return Math.min(1, (dense * kv + (blocks - dense) * (exact + (kv - exact) / BLOCK)) / blocks ** 2);
}

/** How many times as fast as a dense one a step of the 14B is about. */
export function speedUp(fraction, target) {
  const attention = ATTENTION_PER_TOKEN * 2 * target;
  return fraction === 1 ? 1 : (1 + attention) / (1 + attention * fraction * OVERHEAD);
}

/**
 * The size that an Encode Source Video node asks for.
 *
 * @param clip what is known of the clip: {frames, sizes}, from the start that is asked for, by automatic size. Else the
 *     wide size, and the trained number of frames where all of them are edited.
 */
export function sizeOf(values, clip) {
  const automatic = clip?.sizes[values?.size] ?? LARGEST_OF[values?.size];
  const [width, height] = automatic ?? [values?.width ?? 960, values?.height ?? 544];
  const frames = Math.min(values?.max_frames || Infinity, clip?.frames ?? Infinity);
  return { width, height, frames: isFinite(frames) ? frames : TRAINED.frames };
}
