// On the prompts that lead to an edit: instructions to choose from, and the negative prompt that
// LIVEditor was released with. The choice is written into the text, where it can be changed.

import { app } from "../../scripts/app.js";
import { connected, values } from "./graph.js";
import { inLanguage } from "./words.js";

const REFRESH = 300; // milliseconds
const WORDS = {
  en: { positive: "examples", negative: "released", choose: "choose ..." },
  zh: { positive: "示例", negative: "发布值", choose: "选择……" },
};
const SMALL = /^liveditor_nano/; // files of the small model, which knows these edits and no others
export const SMALL_EDITS = [
  "turn it into a night scene",
  "make it black and white",
  "invert the colours",
  "give it a warm sepia tone",
  "make it brighter",
  "swap red and blue",
  "mirror it",
  "turn it upside down",
  "pixelate it",
  "add a red border",
];
const EDITS = [
  "Replace the car with a red vintage convertible.",
  "Replace the person's jacket with a yellow raincoat.",
  "Remove the person in the background.",
  "Remove the text and logos.",
  "Add a small brown dog that walks beside the person.",
  "Add a straw hat to the person's head.",
  "Change the colour of the dress to emerald green.",
  "Change the background to a sandy beach at sunset.",
  "Turn the scene into a snowy winter evening, with snow on the ground and warm light in the windows.",
  "Make it rain heavily, with wet ground and reflections.",
  "Change the time of day to night, lit by street lamps.",
  "Turn the video into a watercolour painting.",
  "Turn the video into a hand-drawn animation.",
];
// As published, with its misprint.
export const NEGATIVE =
  "色调艳丽, 过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，" +
  "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，稳定s的背景，三条腿，背景人很多，倒着走";

function textOf(encode) {
  return encode.widgets?.find(({ name }) => name === "text");
}

function choices(kind, encode) {
  const small = Object.values(values(connected(encode, "clip"))).some((value) => SMALL.test(value));
  if (kind === "positive") return small ? SMALL_EDITS : EDITS;
  return small ? [] : [NEGATIVE];
}

/** The node that encodes the prompt of a node, where its text is written on it. */
function promptOf(node, kind) {
  const encode = connected(node, kind);
  const encodes = encode?.inputs?.some(({ name }) => name === "clip") && textOf(encode);
  return encodes && !connected(encode, "text") ? encode : null;
}

/** A list on a node. */
function offer(encode, kind) {
  const say = inLanguage(WORDS);
  const list = encode.addWidget("combo", "liveditor_examples", say.choose, (choice) => {
    if (choice !== say.choose) {
      const text = textOf(encode);
      text.value = choice;
      text.callback?.(choice);
    }
    list.value = say.choose;
  }, { values: () => [say.choose, ...choices(kind, encode)], serialize: false });
  list.serialize = false; // of no graph: it is only written into the text
  list.label = say[kind];
  return list;
}

app.registerExtension({
  name: "liveditor.Examples",
  nodeCreated(node) {
    if (!["LIVEditSampler", "EncodeSourceVideo"].includes(node.comfyClass)) return;
    const shown = { positive: null, negative: null }; // {encode, list}
    const refresh = () => {
      for (const kind of ["positive", "negative"]) {
        const found = promptOf(node, kind);
        const encode = found && choices(kind, found).length ? found : null;
        const there = shown[kind]?.encode.widgets.includes(shown[kind].list); // ComfyUI may make the others anew
        if (encode === (there ? shown[kind].encode : null)) continue;
        if (there) shown[kind].encode.removeWidget(shown[kind].list);
        const free = encode && !encode.widgets.some(({ name }) => name === "liveditor_examples");
        shown[kind] = free ? { encode, list: offer(encode, kind) } : null;
      }
    };
    let timer;
    const { onAdded, onRemoved } = node;
    node.onAdded = function () {
      clearInterval(timer);
      timer = setInterval(refresh, REFRESH);
      return onAdded?.apply(this, arguments);
    };
    node.onRemoved = function () {
      clearInterval(timer);
      for (const { encode, list } of Object.values(shown).filter(Boolean)) {
        if (encode.widgets.includes(list)) encode.removeWidget(list);
      }
      return onRemoved?.apply(this, arguments);
    };
  },
});
