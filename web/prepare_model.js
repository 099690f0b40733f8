// On Load LIVEditor: a button that puts Prepare LIVEditor Model before it, so that one run prepares, loads and edits.
// When that has run, the new file stands in every menu, and in the Load LIVEditor nodes whose file cannot be loaded.
// Graphs, stock loaders and blueprints that name the 14B in a weight type that is not here get the one that is.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { inLanguage } from "./words.js";

const PREPARE = "LIVEditPrepareModel", LOAD = "LoadLIVEditor", STOCK = "UNETLoader";
const PREPARED = /(^|[\\/])liveditor_14b_[^\\/]+$/; // the same model, in whichever weight type was made of it
const PICKLE = /\.(bin|pt|pth|ckpt|pkl)$/i;
const WIDTH = 420, GAP = 60; // pixels: room for a weight type's line; between the two nodes
const EDGE = 80; // pixels of the screen, for the side bar
const WORDS = {
  en: { prepare: "Prepare LIVEditor Model…", help: "Download the 14B model or convert it, in the canvas." },
  zh: { prepare: "准备 LIVEditor 模型…", help: "在画布中下载或转换 14B 模型。" },
};

function* everyNode(graph) {
  for (const node of graph?.nodes ?? []) {
    yield node;
    yield* everyNode(node.subgraph);
  }
}

/** Connect a Load node to the Prepare node of its graph; to a new one at its left where there is none. */
function prepareFor(node) {
  const graph = node.graph ?? app.graph;
  let prepare = graph.nodes.find(({ type }) => type === PREPARE);
  if (!prepare) {
    prepare = LiteGraph.createNode(PREPARE);
    graph.add(prepare);
    prepare.setSize([WIDTH, prepare.size[1]]);
    prepare.pos = [node.pos[0] - prepare.size[0] - GAP, node.pos[1]];
  }
  const input = node.inputs.findIndex(({ name }) => name === "checkpoint");
  if (node.inputs[input]?.link == null) prepare.connect(0, node, input);
  app.canvas.deselectAll();
  app.canvas.select?.(prepare);
  show(prepare);
}

/** Move the view no further than it takes to see a node's left side. */
function show(node) {
  const { ds } = app.canvas;
  ds.offset[0] += Math.max(0, EDGE / ds.scale - node.pos[0] - ds.offset[0]);
  app.canvas.setDirty(true, true);
}

const checkpointOf = (node) => node.widgets?.find(({ name }) => name === "checkpoint");

function choose(node, widget, name) {
  widget.value = name;
  widget.callback?.(name);
  node.setDirtyCanvas?.(true, true);
}

/** Where a node names a file that is not here, the model as it was prepared here. */
function takePrepared(node) {
  for (const widget of node.widgets ?? []) {
    const options = widget.options?.values;
    if (!Array.isArray(options) || !PREPARED.test(widget.value) || options.includes(widget.value)) continue;
    const prepared = options.find((name) => PREPARED.test(name) && !PICKLE.test(name));
    if (prepared) choose(node, widget, prepared);
  }
}

async function stands(name) {
  await app.refreshComboInNodes();
  for (const node of everyNode(app.graph)) {
    if (node.type !== LOAD) continue;
    const widget = checkpointOf(node), options = widget?.options.values ?? [];
    if (options.includes(name) && (!options.includes(widget.value) || PICKLE.test(widget.value))) {
      choose(node, widget, name);
    }
  }
}

app.registerExtension({
  name: "liveditor.PrepareModel",
  setup() {
    api.addEventListener("executed", ({ detail }) => {
      const [name] = detail?.output?.liveditor_prepared ?? [];
      if (name) stands(name);
    });
  },
  nodeCreated(node) {
    if (node.comfyClass !== LOAD && node.comfyClass !== STOCK && !node.isSubgraphNode?.()) return;
    const { onConfigure } = node;
    node.onConfigure = function () {
      const done = onConfigure?.apply(this, arguments);
      takePrepared(node);
      setTimeout(() => takePrepared(node)); // a blueprint's values are set afterwards
      return done;
    };
    if (node.comfyClass !== LOAD) return;
    const words = inLanguage(WORDS);
    const button = node.addWidget("button", "prepare", null, () => prepareFor(node), { serialize: false });
    button.serialize = false;
    button.label = words.prepare;
    button.tooltip = words.help;
  },
});
