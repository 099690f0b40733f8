// On LIVEdit Sampler: ComfyUI adds the line that says how far an edit is, and leaves it on the node for good. Here it
// goes when the node says nothing more (sampling/edit.py), and the node is as high as before.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const LINE = "$$node-text-preview"; // ComfyUI's name for the widget

app.registerExtension({
  name: "liveditor.SamplerProgress",
  nodeCreated(node) {
    if (node.comfyClass !== "LIVEditSampler") return;
    const line = () => node.widgets?.find(({ name }) => name === LINE);
    let height = null; // before the line came; the node grows when it is drawn next
    const told = ({ detail }) => {
      if (String(detail.nodeId).split(":").at(-1) !== String(node.id)) return;
      if (detail.text) return void (height ??= node.size[1]);
      if (line()) {
        node.removeWidget(line());
        node.setSize([node.size[0], Math.min(height ?? node.size[1], node.size[1])]);
        node.setDirtyCanvas?.(true, true);
      }
      height = null;
    };
    const { onAdded, onRemoved } = node;
    node.onAdded = function () {
      api.addEventListener("progress_text", told);
      return onAdded?.apply(this, arguments);
    };
    node.onRemoved = function () {
      api.removeEventListener("progress_text", told);
      return onRemoved?.apply(this, arguments);
    };
  },
});
