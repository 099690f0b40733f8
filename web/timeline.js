// On LIVEdit Timeline: a bar that follows the text, and changes it.

import { app } from "../../scripts/app.js";
import { askClip, extent, follow, keepInPlace } from "./graph.js";
import { HEIGHT, timelineBar } from "./timeline_bar.js";
import { readTimeline, withLineAt, withTime } from "./timeline_text.js";
import { inLanguage } from "./words.js";

const REFRESH = 100; // milliseconds; the only way that sees typing, dragging, loading, undo and other nodes alike
const WIDTH = 420;
const TEXT = 60; // pixels that the text gets beyond its least
const BEYOND = 1.25; // of the last line's time, where the length of the edit is not known
const SHORTEST = 2; // seconds of a bar whose length is not known
const WORDS = {
  en: {
    border: "start of",
    shot: "a shot begins at",
    time: "must begin with a time",
    instruction: "must have an instruction after its time",
    second: "must have one time, when its instruction begins",
    first: "the first instruction must begin at 0:00",
    order: "must begin after the line before it",
    end: "must begin before the edit ends",
    empty: "must have at least one line such as 0:00 make it night",
    line: (number, rule, text) => `line ${number}: ${rule}, in "${text}"`,
    hint: "Click the bar or a shot (yellow) to begin a line there; drag a border.",
    unknown: "The clip's length is not known here: connect source, with a clip chosen in the Load Video before it.",
    looking: "looking for shots ...",
    shots: (count) => count === 1 ? "1 shot change" : `${count} shot changes`,
  },
  zh: {
    border: "起点：",
    shot: "镜头起点",
    time: "必须以时间开头",
    instruction: "时间之后必须有指令",
    second: "只能有一个时间，即指令的起点",
    first: "第一条指令必须从 0:00 开始",
    order: "必须晚于上一行",
    end: "必须早于编辑的结尾",
    empty: "至少要有一行，例如 0:00 make it night",
    line: (number, rule, text) => `第 ${number} 行：${rule}，“${text}”`,
    hint: "点击时间条或镜头标记（黄色）可在该处新增一行；拖动分界线可改时间。",
    unknown: "此处不知道片长：请连接源，且其视频来自已选好文件的加载视频。",
    looking: "正在查找镜头……",
    shots: (count) => `${count} 处镜头切换`,
  },
};

/** The length of the part that a node edits and where its shots begin: {length, shots, looking}, or {problem}. */
function shotsOf(node) {
  return follow(node, async (part, signal, tell) => {
    const { file, start } = part;
    try {
      const clip = await askClip({ file, start, seconds: 0 }, signal); // at once; looking for shots takes longer
      if (clip.error) return tell({ problem: clip.error });
      const { length } = extent(part, clip);
      if (length <= 0) return tell(null);
      tell({ length, shots: [], looking: true });
      const seen = await askClip({ file, start, seconds: length }, signal);
      tell({ length, shots: (seen.shots ?? []).map((time) => time - clip.start) });
    } catch {
      tell(null); // no server, or none that knows of shots
    }
  });
}

app.registerExtension({
  name: "liveditor.Timeline",
  nodeCreated(node) {
    if (node.comfyClass !== "LIVEditTimeline") return;
    const text = node.widgets.find(({ name }) => name === "timeline");
    const shots = shotsOf(node);
    const set = (value) => {
      if (value === text.value) return;
      text.value = value;
      text.callback?.(value);
      refresh();
    };
    const bar = timelineBar({
      put: (time) => set(withLineAt(text.value, time)),
      move: (line, time) => set(withTime(text.value, line, time)),
    });
    // Not an input of the node: it comes last and is saved nowhere.
    const widget = node.addDOMWidget("bar", "liveditor_timeline", bar.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => HEIGHT,
      getMaxHeight: () => HEIGHT,
    });
    widget.serialize = false;
    node.setSize([Math.max(node.size[0], WIDTH), Math.max(node.size[1], node.computeSize()[1] + TEXT)]);

    let shown; // what the bar was last drawn from
    function refresh() {
      keepInPlace(node, bar.root);
      const clip = shots.refresh(), say = inLanguage(WORDS);
      const { good, wrong } = readTimeline(String(text.value ?? ""), clip?.length ?? null);
      const length = clip?.length ?? Math.max(SHORTEST, BEYOND * (good.at(-1)?.start ?? 0));
      const messages = wrong.map((each) => each.line ? say.line(each.line, say[each.wrong], each.text) : say.empty);
      const known = !clip?.shots
        ? clip?.problem ?? say.unknown
        : clip.looking
        ? say.looking
        : say.shots(clip.shots.length);
      const state = {
        lines: good,
        length,
        shots: clip?.shots ?? [],
        wrong: messages.length > 0,
        say: messages.length ? messages : [say.hint, known],
        names: { border: say.border, shot: say.shot },
      };
      const key = JSON.stringify([state, bar.root.clientWidth]);
      if (key === shown) return;
      shown = key;
      bar.draw(state);
    }
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
      shots.stop();
      return onRemoved?.apply(this, arguments);
    };
  },
});
