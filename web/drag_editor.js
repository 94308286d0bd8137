/* Gives the READOUT_DRAGS input its editor: what ties the editor to ComfyUI's graph. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { DragView } from "./drag_view.js";

const TYPE = "READOUT_DRAGS";
const PICTURE_INPUT = "image";
const NODE_SIZE = [360, 600]; // when it is new
const MIN_HEIGHT = 240;
const LOOK_EVERY = 300; // milliseconds

const outputsOf = (node) => app.nodeOutputs[node.graph.isRootGraph ? node.id : `${node.graph.id}:${node.id}`];

/** The node that feeds an input, seen through reroutes. */
function sourceOf(node, slot) {
  const source = node.getInputNode(slot);
  return source?.type === "Reroute" ? sourceOf(source, 0) : source;
}

/** The picture to draw on, as the server names it. A Load Image shows what it holds now, anything else what last ran. */
function pictureFor(node, slot) {
  const source = sourceOf(node, slot);
  const shown = source && outputsOf(source)?.images?.[0];
  const ran = outputsOf(node)?.readout_picture?.[0];
  return source?.type.startsWith("LoadImage") ? shown : ran ?? shown;
}

/** Keeps the editor's picture up to date. It looks again and again, for no single event tells of all that can change it. */
function followPicture(node, view) {
  let timer, last, address;
  const look = () => {
    const slot = node.findInputSlot(PICTURE_INPUT);
    const connected = node.inputs[slot].link != null;
    const picture = connected ? pictureFor(node, slot) : undefined;
    if (picture !== last) { // another object after each run, even where the file has the same name
      last = picture;
      const { filename, subfolder = "", type } = picture ?? {};
      address = picture && api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, rand: Math.random() })}`);
    }
    view.show(address ?? null, connected ? "Run the workflow once to see the picture here, or draw already"
                                         : `Connect a picture to '${PICTURE_INPUT}'`);
  };
  const { onAdded, onRemoved, onConnectionsChange } = node;
  node.onAdded = function (...args) {
    onAdded?.apply(this, args);
    timer = setInterval(look, LOOK_EVERY);
  };
  node.onRemoved = function (...args) {
    onRemoved?.apply(this, args);
    clearInterval(timer);
  };
  node.onConnectionsChange = function (type, slot, ...args) {
    onConnectionsChange?.call(this, type, slot, ...args);
    const ours = type === LiteGraph.INPUT && this.inputs[slot]?.name === PICTURE_INPUT;
    if (ours && this.graph && !app.configuringGraph) delete outputsOf(this)?.readout_picture; // it came from elsewhere
  };
}

/** The wheel and the middle button are the canvas's everywhere: they zoom and pan. */
function passToCanvas(element) {
  const pass = (event) => {
    event.preventDefault();
    event.stopPropagation();
    app.canvas.canvas.dispatchEvent(new event.constructor(event.type, event));
  };
  element.addEventListener("wheel", pass);
  for (const type of ["pointerdown", "pointermove", "pointerup"]) {
    element.addEventListener(type, (event) => (event.button === 1 || event.buttons & 4) && pass(event));
  }
}

function dragsWidget(node, name, spec) {
  const view = new DragView(() => {
    widget.callback?.(view.value);
    app.canvas.emitBeforeChange(); // the pair is ComfyUI's sign to compare the graph and note the change
    app.canvas.emitAfterChange();
    node.setDirtyCanvas(true);
  });
  const widget = node.addDOMWidget(name, TYPE, view.element, {
    getValue: () => view.value,
    setValue: (text) => { view.value = text; },
    getMinHeight: () => MIN_HEIGHT,
    hideOnZoom: false,
  });
  view.value = spec[1]?.default ?? "[]";
  passToCanvas(view.element);
  followPicture(node, view);
  return { widget, minWidth: NODE_SIZE[0], minHeight: NODE_SIZE[1] };
}

document.head.append(Object.assign(document.createElement("link"),
  { rel: "stylesheet", href: new URL("./drag_editor.css", import.meta.url).href }));

app.registerExtension({
  name: "readout_guidance.drag_editor",
  getCustomWidgets: () => ({ [TYPE]: dragsWidget }),
});
