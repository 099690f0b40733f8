// Whether the chosen files fit this machine at the size of the edit, as the server says.

import { api } from "../../scripts/api.js";
import { connected, values } from "./graph.js";

const LOADER = "LoadLIVEditor";
const AGAIN = 15000; // milliseconds after which free memory is asked for anew
const WORDS = {
  en: {
    later: () => "\nmemory: known once the model is prepared or chosen",
    needs: ({ weights, call, text_encoder, vae }) =>
      `weights ${weights}, a call ${call}, text encoder ${text_encoder}, VAE ${vae}`,
    gpu: (free) => `; ${free} of GPU memory free`,
    ram: (free) => `; no GPU, ${free} of RAM free`,
    offloaded: (size) => `\n${size} of the weights stay in RAM`,
    cost: (seconds) => `: about ${seconds} s more a call`,
    tooLarge: () => "\ntoo little GPU memory: take a smaller size or window",
    tight: () => "\nlittle GPU memory: a smaller size or window is safer",
    lacksRam: (all) => `\ntoo little RAM (${all}): take a smaller weight type`,
  },
  zh: {
    later: () => "\n内存需求：准备好或选择模型后可知",
    needs: ({ weights, call, text_encoder, vae }) =>
      `权重 ${weights}，单次调用 ${call}，文本编码器 ${text_encoder}，VAE ${vae}`,
    gpu: (free) => `；可用显存 ${free}`,
    ram: (free) => `；无 GPU，可用内存 ${free}`,
    offloaded: (size) => `\n${size} 权重留在内存中`,
    cost: (seconds) => `：每次调用约多 ${seconds} 秒`,
    tooLarge: () => "\n显存不足：请减小尺寸或窗口",
    tight: () => "\n显存较紧张：减小尺寸或窗口更稳妥",
    lacksRam: (all) => `\n内存不足（${all}）：请选择更小的权重类型`,
  },
};
const FETCH_GGUF = 0.2; // seconds a call for a GiB, as in liveditor_core/model/fit.py

/** The Load LIVEditor whose model a node gets, through whatever lies between. */
function loaderOf(node) {
  for (let found = connected(node, "model"), steps = 0; found && steps < 100; steps++) {
    if (found.comfyClass === LOADER) return found;
    found = connected(found, "model");
  }
  return null;
}

const size = (bytes) =>
  bytes < 2 ** 30 / 10 ? `${Math.ceil(bytes / 2 ** 20)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;

function told(say, fit) {
  const { machine } = fit;
  const sizes = Object.fromEntries(["weights", "call", "text_encoder", "vae"].map((name) => [name, size(fit[name])]));
  let text = say.needs(sizes) + (machine.gpu === null ? say.ram(size(machine.ram)) : say.gpu(size(machine.gpu)));
  if (!fit.fits) text += say.tooLarge();
  else if (fit.tight) text += say.tight();
  else if (fit.in_ram) {
    text += say.offloaded(size(fit.in_ram));
    if (fit.packed) text += say.cost((FETCH_GGUF * fit.in_ram / 2 ** 30).toFixed(1));
  }
  return text + (fit.lacks_ram ? say.lacksRam(size(machine.all_ram)) : "");
}

/**
 * What a node's model needs and what is free.
 *
 * @returns {function(number, function): string} of tokens and a chooser of words: lines, empty until it is answered.
 */
export function fitOf(node) {
  let asked = "", when = 0, fit = null;
  const ask = async (query) => {
    try {
      const answer = await api.fetchApi(`/liveditor/fit?${query}`);
      const found = answer.ok ? await answer.json() : null;
      if (query === asked) fit = found;
    } catch {
      if (query === asked) fit = null; // no server
    }
  };
  return (tokens, inLanguage) => {
    const loader = loaderOf(node);
    const { checkpoint, weight_type, text_encoder, vae } = values(loader);
    if (!loader || !checkpoint) return "";
    const query = `${new URLSearchParams({ checkpoint, weight_type, text_encoder, vae, tokens })}`;
    if (query !== asked || Date.now() - when > AGAIN) {
      if (query !== asked) fit = null;
      asked = query;
      when = Date.now();
      ask(query);
    }
    if (!fit) return "";
    const say = inLanguage(WORDS);
    return fit.error ? say.later() : `\n${told(say, fit)}`; // an error: not here, or Load LIVEditor refuses it
  };
}
