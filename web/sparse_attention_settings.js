// On Sparse Attention Settings: presets, and what the settings leave to compute, while they are dragged.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { denseFraction, PRESETS, sizeOf, speedUp, targetTokens, windowsOf } from "./budget.js";
import { fitOf } from "./fit.js";
import { askClip, computed, encoder, extent, follow, keepInPlace, sampler, values } from "./graph.js";
import { inLanguage } from "./words.js";

const CUSTOM = "custom";
const DENSE = "Dense";
const OF_THE_SIZE = ["size", "width", "height", "fps", "start", "max_frames"];
const HEIGHT = 96; // pixels: six lines
const REFRESH = 100; // milliseconds; the only way that sees dragging, typing, loading, undo and other nodes alike
const WORDS = {
  en: {
    preset: "preset",
    left: (percent) => `${percent} % of dense attention`,
    faster: (times, here) => here ? `, a step about ${times}x as fast` : `, a step ${times}x as fast (H200)`,
    noFaster: () => ", no faster at this size",
    without: (percent) => `dense here: no Triton (with it ${percent} %)`,
    cannot: (backend) => `, but ${backend} cannot run here`,
    dense: () => "dense: nothing is left out",
    at: (size, tokens) => `at ${size.width}x${size.height}, ${size.frames} frames: ${tokens} tokens`,
    each: (size, tokens, count) =>
      `at ${size.width}x${size.height}, ${count} windows of ${size.frames} frames: ${tokens} tokens each`,
    unknown: (names) => `; ${names} may be another when it runs`,
  },
  zh: {
    preset: "预设",
    left: (percent) => `剩余计算量为稠密注意力的 ${percent} %`,
    faster: (times, here) => `，每步约快 ${times} 倍${here ? "" : "（H200）"}`,
    noFaster: () => "，在此尺寸下不会更快",
    without: (percent) => `此处为稠密计算：没有 Triton（有它时为 ${percent} %）`,
    cannot: (backend) => `，但 ${backend} 无法在此运行`,
    dense: () => "稠密：计算全部注意力",
    at: (size, tokens) => `${size.width}x${size.height}，${size.frames} 帧：${tokens} 个 token`,
    each: (size, tokens, count) =>
      `${size.width}x${size.height}，${count} 个窗口，每个 ${size.frames} 帧、${tokens} 个 token`,
    unknown: (names) => `；${names} 运行时才能确定`,
  },
};

function presetOf(settings) {
  if (settings.backend === "dense") return DENSE;
  const same = ([, preset]) => Object.entries(preset).every(([name, value]) => Math.abs(settings[name] - value) < 1e-6);
  return Object.entries(PRESETS).find(same)?.[0] ?? CUSTOM;
}

function choose(node, name) {
  const set = (key, value) => {
    const widget = node.widgets.find((each) => each.name === key);
    widget.value = value;
    widget.callback?.(value);
  };
  if (name === DENSE) set("backend", "dense");
  if (!PRESETS[name]) return;
  Object.entries(PRESETS[name]).forEach(([key, value]) => set(key, value));
  if (values(node).backend === "dense") set("backend", "auto");
}

/** What is left to compute, and of its speed no more than is known of what the server says it computes with. */
function budget(say, settings, speed, target) {
  const fraction = denseFraction(settings, target);
  if (fraction === 1) return say.dense();
  const percent = (100 * fraction).toFixed(1);
  if (speed?.computes === "dense") return say.without(percent);
  if (speed?.computes === null) return say.left(percent) + say.cannot(settings.backend);
  if (!speed?.faster_from) return say.left(percent);
  const times = 2 * target < speed.faster_from ? 1 : speedUp(fraction, target);
  return say.left(percent) + (times < 1.05 ? say.noFaster() : say.faster(times.toFixed(1), speed.measured));
}

/** Of the clip that a node edits: the frames from its start on, and the sizes that automatic ones are. */
function clipOf(node) {
  return follow(node, async (part, signal, tell) => {
    try {
      const clip = await askClip({ file: part.file, start: part.start, seconds: 0 }, signal);
      const { fps, length } = extent({ ...part, frames: 0 }, clip);
      tell(length > 0 ? { frames: Math.max(1, Math.round(length * fps)), sizes: clip.sizes } : null);
    } catch {
      tell(null); // no server, or none that knows of clips
    }
  });
}

app.registerExtension({
  name: "liveditor.SparseAttentionSettings",
  nodeCreated(node) {
    if (node.comfyClass !== "SparseAttentionSettings") return;
    // Neither is an input of the node: they come last and are saved nowhere.
    const preset = node.addWidget("combo", "preset", "Released", (name) => choose(node, name), {
      values: [...Object.keys(PRESETS), DENSE, CUSTOM],
      serialize: false,
    });
    preset.serialize = false;
    preset.label = inLanguage(WORDS).preset;
    const text = document.createElement("div");
    text.className = "liveditor-budget";
    text.style.cssText = "font-size: 11px; line-height: 1.35; padding: 4px 8px; opacity: 0.85; overflow: hidden; " +
      "pointer-events: none; white-space: pre-line;";
    const readout = node.addDOMWidget("budget", "liveditor_budget", text, {
      serialize: false,
      getMinHeight: () => HEIGHT,
      getMaxHeight: () => HEIGHT,
    });
    readout.serialize = false;

    const speeds = {}; // by backend, as the server answers
    const ask = async (backend) => {
      speeds[backend] = undefined;
      const answer = await api.fetchApi(`/liveditor/attention?backend=${backend}`);
      if (answer.ok) speeds[backend] = await answer.json();
    };
    const clip = clipOf(node), fit = fitOf(node);
    const refresh = () => {
      keepInPlace(node, text);
      const settings = values(node), sampling = sampler(node), encode = encoder(node);
      const whole = sizeOf(values(encode), clip.refresh());
      const { count, frames } = windowsOf(whole.frames, sampling && values(sampling));
      const size = { ...whole, frames };
      const target = targetTokens(size);
      const say = inLanguage(WORDS);
      if (!(settings.backend in speeds)) ask(settings.backend);
      const first = budget(say, settings, speeds[settings.backend], target);
      const second = count > 1 ? say.each : say.at;
      const unknown = computed(encode, OF_THE_SIZE);
      const line = `${first}\n${second(size, (2 * target).toLocaleString("en"), count)}` +
        (unknown.length ? say.unknown(unknown.join(", ")) : fit(2 * target, inLanguage));
      if (text.textContent !== line) text.textContent = line;
      const name = presetOf(settings);
      if (preset.value !== name) {
        preset.value = name;
        node.setDirtyCanvas?.(true);
      }
    };
    let timer; // while the node is in a graph: copies that only pass through the clipboard must leave nothing running
    const { onAdded, onConfigure, onRemoved } = node;
    node.onConfigure = function () {
      refresh();
      return onConfigure?.apply(this, arguments);
    };
    node.onAdded = function () {
      clearInterval(timer);
      timer = setInterval(refresh, REFRESH);
      return onAdded?.apply(this, arguments);
    };
    node.onRemoved = function () {
      clearInterval(timer);
      clip.stop();
      return onRemoved?.apply(this, arguments);
    };
  },
});
