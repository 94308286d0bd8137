/* Where on the page the drags are: the text fields that ComfyUI shows for them, and the node that each belongs to. */
import { app } from "../../scripts/app.js";
import { targetOf } from "./drag_picture.js";

const INPUT = "drags";
const MARK = "data-readout-drags"; // an attribute of each of their text fields
const HEIGHT = "240"; // pixels that the editor needs at least
let marked = 0;

/** Marks the drags of a new Drag Target. The mark is an option of the widget, too: ComfyUI passes options on where the widget is
 * promoted, and makes attributes of them in Nodes 2.0 and app mode. */
export function markDrags(node) {
  const widget = node.widgets.find(({ name }) => name === INPUT);
  widget.options[MARK] = String(++marked);
  widget.isVisible = () => !widget.hidden && node.isWidgetVisible(widget); // where its input is connected, too, to say so
  if (widget.element) markField(widget.element, widget.options[MARK]); // ComfyUI before 1.47 shows this very field where it is promoted
}

function markField(area, mark) {
  if (area.getAttribute(MARK) === mark) return;
  area.setAttribute(MARK, mark);
  area.style.setProperty("--comfy-widget-min-height", HEIGHT);
}

const allGraphs = () => [app.graph.rootGraph, ...app.graph.rootGraph.subgraphs.values()];

/** The inputs of a node that are drags, its own or promoted to it: each with the node, slot and widget, and the mark. */
function dragsOf(node) {
  if (!node.subgraph) {
    const widget = node.widgets?.find(({ options }) => options?.[MARK]);
    return widget ? [{ node, slot: node.findInputSlot(INPUT), widget, mark: widget.options[MARK] }] : [];
  }
  return node.inputs.flatMap((input, slot) => {
    const { node: target, slot: inner } = targetOf(node, slot);
    const inside = target?.inputs[inner]?.name === INPUT ? dragsOf(target)[0] : undefined;
    return inside ? [{ node, slot, widget: node.widgets.find(({ name }) => name === input.name), mark: inside.mark }] : [];
  });
}

/** Whether the label of a text field in a node of Nodes 2.0 is that of an input. */
function isLabelled(area, { node, slot, widget }) {
  const { name, label, localized_name } = node.inputs[slot];
  return [name, label, localized_name, widget?.label].includes(area.labels[0]?.textContent.trim());
}

/** The text fields of the nodes that are shown: their widgets' own, or in Nodes 2.0 what has their label. */
function* fieldsOfNodes() {
  for (const owner of app.canvas.graph.nodes.flatMap(dragsOf)) {
    if (owner.widget?.element instanceof HTMLTextAreaElement) yield [owner.widget.element, owner];
    const drawn = document.querySelectorAll(`[data-node-id="${CSS.escape(owner.node.id)}"] textarea`);
    for (const area of drawn) if (isLabelled(area, owner)) yield [area, owner];
  }
}

/** Whether what an input gets comes from outside of the subgraph that its node is in. */
const fromBorder = ({ node, slot }) => node.graph.getLink(node.inputs[slot].link)?.originIsIoNode;

/** What a marked text field is for in app mode or the side panel. The page may give it the mark of a node that was there before: then it is the
 * one with its text. */
function ownerOf(area) {
  const owners = allGraphs().flatMap(({ nodes }) => nodes).flatMap(dragsOf).filter((owner) => !fromBorder(owner));
  return owners.find(({ mark }) => mark === area.getAttribute(MARK)) ?? owners.find(({ widget }) => widget?.value === area.value) ?? owners[0];
}

/** All text fields on the page that hold drags, each with the node, slot and widget that it is for. */
export function fieldsOnPage() {
  const fields = new Map();
  for (const [area, owner] of fieldsOfNodes()) {
    markField(area, owner.mark);
    if (area.isConnected) fields.set(area, owner);
  }
  for (const area of document.querySelectorAll(`textarea[${MARK}]`)) {
    const owner = fields.get(area) ?? ownerOf(area);
    if (owner) fields.set(area, owner);
  }
  return fields;
}

/** Brings what promoted drags hold to the widget inside, for when they are promoted no longer, or unpacked: before 1.58 the page takes what is
 * inside then. Where several subgraph nodes share what is inside, it has what was drawn last. */
export function bringInside({ node, slot, widget }) {
  const [inside] = dragsOf(targetOf(node, slot).node);
  if (inside && inside.widget !== widget && inside.widget.value !== widget.value) inside.widget.value = widget.value;
}
