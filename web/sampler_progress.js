// On LIVEdit Sampler: ComfyUI adds the line that says how far an edit is, and leaves it on the node for good. Here it
// goes when the edit is over, and the node is as high as before.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const LINE = "$$node-text-preview"; // ComfyUI's name for the widget

app.registerExtension({
  name: "liveditor.SamplerProgress",
  nodeCreated(node) {
    if (node.comfyClass !== "LIVEditSampler") return;
    const line = () => node.widgets?.find(({ name }) => name === LINE);
    let height = null; // before the line came; the node grows when it is drawn next
    const told = () => height ??= node.size[1];
    const over = () => { // also where another node begins, or none after an interrupt or a failure
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
      api.addEventListener("executing", over);
      return onAdded?.apply(this, arguments);
    };
    node.onRemoved = function () {
      api.removeEventListener("progress_text", told);
      api.removeEventListener("executing", over);
      return onRemoved?.apply(this, arguments);
    };
  },
});
