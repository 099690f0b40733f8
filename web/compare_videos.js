// The player on Compare Videos.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { comparePlayer } from "./compare_player.js";
import { nodeAt } from "./graph.js";
import { inLanguage } from "./words.js";

const WORDS = {
  en: {
    before: "before",
    after: "after",
    hint: "Run the workflow to compare both videos here.",
    frame: "frame",
    play: "play or pause (space)",
    back: "one frame back (left arrow; ten with shift)",
    forward: "one frame on (right arrow; ten with shift)",
    both: "side by side (b)",
    muted: "sound (m)",
    fullscreen: "full screen (f)",
    help: "Drag the border, or move it with [ and ]. Space plays, arrows step frame by frame, Home and End jump, " +
      "b side by side, m sound, f full screen. The wheel, + and - enlarge, 0 shows all; with shift drag the picture.",
  },
  zh: {
    before: "编辑前",
    after: "编辑后",
    hint: "运行工作流后，可在这里比较两段视频。",
    frame: "帧",
    play: "播放或暂停（空格）",
    back: "后退一帧（左方向键，按住 Shift 为十帧）",
    forward: "前进一帧（右方向键，按住 Shift 为十帧）",
    both: "并排显示（b）",
    muted: "声音（m）",
    fullscreen: "全屏（f）",
    help:
      "拖动分界线，或用 [ 和 ] 移动。空格播放，方向键逐帧移动，Home 和 End 跳到首尾，b 并排，m 声音，f 全屏。滚轮、+ 和 - 缩放，0 显示全部；按住 Shift 拖动画面。",
  },
};
const SMALLEST = 240;
const SIZE = [520, 430];

const players = new WeakMap(); // node to the function that shows an output

app.registerExtension({
  name: "liveditor.CompareVideos",
  /** A finished workflow was opened, or one to which the user comes back. */
  onNodeOutputsUpdated(outputs) {
    for (const [key, output] of Object.entries(outputs)) players.get(nodeAt(key))?.(output);
  },
  nodeCreated(node) {
    if (node.comfyClass !== "LIVEditCompareVideos") return;
    const player = comparePlayer(inLanguage(WORDS));
    const widget = node.addDOMWidget("player", "liveditor_compare", player.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => SMALLEST,
    });
    widget.serialize = false;
    node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])]);

    const show = (output) => {
      const clip = output?.liveditor_compare?.[0];
      if (!clip) return;
      const { filename, subfolder, type } = clip;
      player.show({
        ...clip,
        url: api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, rand: Math.random() })}`),
      });
    };
    const { onExecuted, onRemoved } = node;
    node.onExecuted = function (output) {
      show(output);
      return onExecuted?.apply(this, arguments);
    };
    players.set(node, show);
    node.onRemoved = function () {
      player.stop();
      return onRemoved?.apply(this, arguments);
    };
  },
});
