// What nodes on the canvas say of the edit, and how they show what is not ComfyUI's own.

import { app } from "../../scripts/app.js";

export function values(node) {
  return Object.fromEntries((node?.widgets ?? []).map((widget) => [widget.name, widget.value]));
}

/** The node that is connected to an input, through reroutes. */
export function connected(node, name) {
  const slot = node?.inputs?.findIndex((input) => input.name === name) ?? -1;
  let found = slot < 0 || !node.graph ? null : node.getInputNode(slot);
  while (found?.type === "Reroute") found = found.getInputNode(0);
  return found;
}

/** The node whose video counts: the connected Encode Source Video, else the only one of the graph. */
export function encoder(node) {
  const source = connected(node, "source");
  if (source) return source;
  const all = (node.graph?.nodes ?? []).filter((other) => other.comfyClass === "EncodeSourceVideo");
  return all.length === 1 ? all[0] : undefined;
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
