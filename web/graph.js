// What nodes on the canvas say of the edit, and how they show what is not ComfyUI's own.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const SETTLED = 3; // refreshes for which a part stays as it is before the server is asked
const TRAINED_FPS = 16;
const LOADER = "LoadVideo"; // the node whose choice the server can find; others may have changed the video
const OF_THE_SUBGRAPH = -10; // ComfyUI's id for what leads to the inputs of a subgraph
const AT_WORK = 0; // neither muted nor bypassed

/** The values of a node's widgets, or of what is connected to them: a primitive, or the subgraph around the node. */
export function values(node) {
  const valueOf = (widget) => {
    const outer = outside(node, widget.name), named = ({ name }) => name === outer.name;
    return (primitive(connected(node, widget.name)) ?? outer.node.widgets?.find(named) ?? widget).value;
  };
  return Object.fromEntries((node?.widgets ?? []).map((widget) => [widget.name, valueOf(widget)]));
}

/** Of these widgets of a node, those whose values other nodes will compute. */
export function computed(node, names) {
  return names.filter((name) => connected(node, name) && !primitive(connected(node, name)));
}

function primitive(node) {
  return node?.type.startsWith("Primitive") ? node.widgets?.find(({ name }) => name === "value") : undefined;
}

/** An input of a node; where the input of a subgraph leads to it, that of the node that stands for the subgraph. */
function outside(node, name) {
  const link = node?.graph?.getLink(node.inputs?.find((input) => input.name === name)?.link);
  if (Number(link?.origin_id) !== OF_THE_SUBGRAPH) return { node, name };
  const root = node.graph.rootGraph;
  const graphs = [root, ...root.subgraphs.values()];
  const around = graphs.flatMap(({ nodes }) => nodes).filter(({ subgraph }) => subgraph === node.graph);
  return around.length === 1 ? outside(around[0], node.graph.inputs[link.origin_slot].name) : { node, name };
}

/** The node that is connected to an input, through reroutes and from outside of subgraphs. */
export function connected(inner, input) {
  const { node, name } = outside(inner, input);
  // Not getInputNode: that of a node which stands for a subgraph looks at its outputs.
  const link = node?.graph?.getLink(node.inputs?.find((each) => each.name === name)?.link);
  const found = link ? node.graph.getNodeById(link.origin_id) : null;
  return found?.type === "Reroute" ? connected(found, found.inputs[0].name) : found;
}

/** The node whose video counts: the connected Encode Source Video, else the only one of the graph. */
export function encoder(node) {
  const source = connected(node, "source");
  if (source) return source;
  const all = (node.graph?.nodes ?? []).filter((other) => other.comfyClass === "EncodeSourceVideo");
  return all.length === 1 ? all[0] : undefined;
}

/** The LIVEdit Sampler that counts for a node: the one that its MODEL leads to, else the only one of the graph. */
export function sampler(node) {
  const all = (node.graph?.nodes ?? []).filter((other) => other.comfyClass === "LIVEditSampler");
  const seen = new Set([node]);
  for (const from of seen) { // grows on the way
    const model = from.outputs?.findIndex((output) => ["MODEL", "*"].includes(output.type)) ?? -1;
    for (const next of (model < 0 ? null : from.getOutputNodes(model)) ?? []) seen.add(next);
  }
  const led = all.filter((each) => seen.has(each));
  return led.find((each) => each.mode === AT_WORK) ?? led[0] ?? (all.length === 1 ? all[0] : undefined);
}

/** The file that is edited and the part of it, as the nodes before say; null where that is not known. */
export function partOf(node) {
  const encode = encoder(node);
  const loader = encode?.comfyClass === "EncodeSourceVideo" ? connected(encode, "video") : null;
  if (loader?.comfyClass !== LOADER) return null;
  const widget = loader.widgets?.find(({ name }) => name === "file");
  const known = widget?.options?.values; // a template may name a file that is not there
  const isThere = !Array.isArray(known) || known.includes(widget.value) || /\[(output|temp)\]$/.test(widget.value);
  if (!widget?.value || !isThere) return null;
  const { start, max_frames, fps } = values(encode);
  return { file: widget.value, start, frames: max_frames, atSourceRate: !String(fps).startsWith(TRAINED_FPS) };
}

/** A node by ComfyUI's key for its output: its id, after that of its subgraph if it lies in one. */
export function nodeAt(key) {
  const [id, subgraph] = String(key).split(":").reverse();
  const graph = subgraph === undefined ? app.rootGraph : app.rootGraph.subgraphs.get(subgraph);
  return graph?.getNodeById(Number(id));
}

/** What the server says of a clip: {length, start, fps, shots} in seconds, or {error}. */
export async function askClip(query, signal) {
  const answer = await api.fetchApi(`/liveditor/shots?${new URLSearchParams(query)}`, { signal });
  return await answer.json();
}

/** Of a part and what the server says of its clip: frames per second of the edit, and its seconds. */
export function extent({ frames, atSourceRate }, clip) {
  const rest = clip.length - clip.start, fps = atSourceRate ? clip.fps : TRAINED_FPS;
  return { fps, length: frames ? Math.min(frames / fps, rest) : rest };
}

/**
 * Follows the part that a node edits.
 *
 * @param look called with a part that has settled, a signal that it is another now, and a function to tell what is
 *     known of it.
 * @returns refresh, which gives what was told last, of the part before until something is told of a new one; and stop.
 */
export function follow(node, look) {
  let wanted = null, settled = 0, asking = new AbortController(), found = null;
  return {
    refresh() {
      const part = partOf(node), key = part && JSON.stringify(part);
      if (key !== wanted) {
        this.stop();
        wanted = key;
        if (!part) found = null;
      }
      if (part && ++settled === SETTLED) {
        const { signal } = asking;
        look(part, signal, (news) => found = signal.aborted ? found : news);
      }
      return found;
    },
    stop() {
      asking.abort();
      asking = new AbortController();
      wanted = null;
      settled = 0;
    },
  };
}

/**
 * Show a node's own element where Nodes 2.0 still shows that of the node before it of the same id, as after undo.
 *
 * @param root the element, with one class of its own.
 */
export function keepInPlace(node, root) {
  if (root.isConnected || node.graph !== app.canvas?.graph) return;
  document.querySelector(`[data-node-id="${node.id}"] .${root.className}`)?.replaceWith(root);
}
