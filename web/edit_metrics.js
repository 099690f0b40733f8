// On Edit Metrics: the numbers that say most, after a run.

import { app } from "../../scripts/app.js";
import { keepInPlace, nodeAt } from "./graph.js";
import { inLanguage } from "./words.js";

const HEIGHT = 96; // pixels: six lines
const REFRESH = 500; // milliseconds, to follow the element where the renderer changes
const WORDS = {
  en: {
    hint: "Run the workflow to see here whether the edit is good.",
    changed: ({ share, masked }) => `changed: ${share} of the pixels${masked ? " inside the mask" : ""}`,
    kept: ({ psnr, ssim, masked }) =>
      `kept ${masked ? "outside the mask" : "in the least-changed half"}: PSNR ${psnr}, SSIM ${ssim}`,
    steady: ({ excess }) => `flicker beyond the source's: ${excess} levels of 255`,
    words: ({ gain }) => `nearer to the words by ${gain}`,
    motion: ({ similarity }) => `moves as the source: ${similarity}`,
    all: ({ kept_if_edited }) => `kept if edited: ${kept_if_edited} (an unedited copy: 0)`,
    identical: "identical",
    nothing: "of no pixel",
  },
  zh: {
    hint: "运行工作流后，可在这里看到编辑的好坏。",
    changed: ({ share, masked }) => `改变：${masked ? "遮罩内" : ""} ${share} 的像素`,
    kept: ({ psnr, ssim, masked }) => `保留（${masked ? "遮罩外" : "变化最小的一半"}）：PSNR ${psnr}，SSIM ${ssim}`,
    steady: ({ excess }) => `比源多出的闪烁：${excess} 级（共 255 级）`,
    words: ({ gain }) => `与文字更接近：${gain}`,
    motion: ({ similarity }) => `运动与源一致：${similarity}`,
    all: ({ kept_if_edited }) => `kept if edited：${kept_if_edited}（未经编辑的副本：0）`,
    identical: "完全相同",
    nothing: "没有像素",
  },
};

const shown = new WeakMap(); // node to the function that shows an output

function lines(found) {
  const say = inLanguage(WORDS);
  const signed = (value, digits) => (value < 0 ? "" : "+") + value.toFixed(digits);
  const plain = (value, digits) => value === null ? say.nothing : value.toFixed(digits);
  const told = {
    ...found,
    share: found.share === null ? say.nothing : `${(100 * found.share).toFixed(2)} %`,
    psnr: found.identical ? say.identical : found.psnr === null ? say.nothing : `${found.psnr.toFixed(2)} dB`,
    ssim: plain(found.ssim, 4),
    kept_if_edited: plain(found.kept_if_edited, 4),
  };
  const out = [say.changed(told), say.kept(told)];
  if (found.excess !== null) out.push(say.steady({ excess: signed(found.excess, 2) }));
  if (found.gain !== null) out.push(say.words({ gain: signed(found.gain, 4) }));
  if (found.similarity !== null) out.push(say.motion({ similarity: found.similarity.toFixed(3) }));
  return [...out, say.all(told)].join("\n");
}

app.registerExtension({
  name: "liveditor.EditMetrics",
  /** A finished workflow was opened, or one to which the user comes back. */
  onNodeOutputsUpdated(outputs) {
    for (const [key, output] of Object.entries(outputs)) shown.get(nodeAt(key))?.(output);
  },
  nodeCreated(node) {
    if (node.comfyClass !== "LIVEditMetrics") return;
    const text = document.createElement("div");
    text.className = "liveditor-metrics";
    text.textContent = inLanguage(WORDS).hint;
    text.style.cssText = "font-size: 11px; line-height: 1.35; padding: 4px 8px; opacity: 0.85; overflow: hidden; " +
      "pointer-events: none; white-space: pre-line;";
    const readout = node.addDOMWidget("metrics", "liveditor_metrics", text, {
      serialize: false,
      getMinHeight: () => HEIGHT,
      getMaxHeight: () => HEIGHT,
    });
    readout.serialize = false;
    const show = (output) => {
      const found = output?.liveditor_metrics?.[0];
      if (found) text.textContent = lines(found);
    };
    shown.set(node, show);
    let timer;
    const { onAdded, onExecuted, onRemoved } = node;
    node.onExecuted = function (output) {
      show(output);
      return onExecuted?.apply(this, arguments);
    };
    node.onAdded = function () {
      clearInterval(timer);
      timer = setInterval(() => keepInPlace(node, text), REFRESH);
      return onAdded?.apply(this, arguments);
    };
    node.onRemoved = function () {
      clearInterval(timer);
      return onRemoved?.apply(this, arguments);
    };
  },
});
