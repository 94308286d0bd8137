/* The editor as a widget of a node: its size, what it tells the frontend, and what it is kept up to date with. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { DragView } from "./drag_view.js";

const MIN_SIZE = [260, 240];
const LOOK_EVERY = 300; // milliseconds

/** The wheel and the middle button are the canvas's wherever it lies below the editor: they zoom and pan. */
function passToCanvas(element) {
  const pass = (event) => {
    if (!element.closest(".graph-canvas-container")) return; // app mode shows the editor on a page of its own, which scrolls
    event.preventDefault();
    event.stopPropagation();
    app.canvas.canvas.dispatchEvent(new event.constructor(event.type, event));
  };
  element.addEventListener("wheel", pass);
  for (const type of ["pointerdown", "pointermove", "pointerup"]) {
    element.addEventListener(type, (event) => (event.button === 1 || event.buttons & 4) && pass(event));
  }
}

/** Puts an editor on a node. `keep` gets each value that the editor takes; `refresh` comes before it is read. */
export function addEditor(node, name, type, keep, refresh = () => {}) {
  const view = new DragView(() => {
    keep(view.value);
    widget.callback?.(view.value);
    app.canvas.emitBeforeChange(); // the pair is ComfyUI's sign to compare the graph and note the change
    app.canvas.emitAfterChange();
    node.setDirtyCanvas(true);
  });
  const widget = node.addDOMWidget(name, type, view.element, {
    getValue: () => {
      refresh(view);
      return view.value;
    },
    setValue: (text) => {
      view.value = text;
      keep(view.value);
    },
    hideOnZoom: false,
  });
  widget.computeLayoutSize = () => ({ minWidth: MIN_SIZE[0], minHeight: MIN_SIZE[1] });
  Object.defineProperty(widget, "width", { get: () => undefined, set: () => {} }); // or the side panel's width stays with it
  widget.isVisible = () => !widget.hidden && node.isWidgetVisible(widget); // where its input is connected, too, to say so
  passToCanvas(view.element);
  return { view, widget };
}

const elements = new Map(); // of the editors, by their places in the graph

/** Where the graph is loaded again, as by an undo, Vue nodes go on showing the editor that was in the same place before. */
function takePlace(place, element) {
  const before = elements.get(place);
  if (before !== element && before?.isConnected && !element.isConnected) before.replaceWith(element);
  elements.set(place, element);
}

/** Whether a node with this widget is in the workflow. A graph that is loaded again drops the old nodes of subgraphs without a word. */
function isInUse(node, widget) {
  const { graph } = node;
  const graphInUse = graph?.isRootGraph || graph?.rootGraph.subgraphs.get(graph.id) === graph;
  return graphInUse && graph.getNodeById(node.id) === node && node.widgets.includes(widget);
}

/** Keeps what an editor shows up to date. It looks again and again, for no single event tells of all that can change it.
 * `look` says what picture there is, or what to do for one, and why nothing can be drawn, if so. */
export function follow(node, { view, widget }, look) {
  let last, address;
  const update = () => {
    takePlace(`${node.graph.id}:${node.id}:${widget.name}`, view.element);
    const { picture, message, locked } = look();
    if (picture !== last) { // another object after each run, even where the file has the same name
      last = picture;
      const { filename, subfolder = "", type } = picture ?? {};
      address = picture && api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, rand: Math.random() })}`);
    }
    view.show(address ?? null, message);
    view.locked = locked;
  };
  const timer = setInterval(() => (isInUse(node, widget) ? update() : clearInterval(timer)), LOOK_EVERY);
}
