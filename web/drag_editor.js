/* Gives the READOUT_DRAGS input its editor, on the Drag Target and on subgraph nodes where the input is promoted. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { noteOpenedSubgraphs, pictureFollower, targetOf } from "./drag_picture.js";
import { addEditor, follow } from "./drag_widget.js";
import { learn, say } from "./words.js";

const TYPE = "READOUT_DRAGS";
const NODE_SIZE = [360, 600]; // when it is new

/** The editor of a Drag Target. */
function dragsWidget(node, name, spec) {
  const editor = addEditor(node, name, TYPE, (text) => {
    const state = editor.widget._state; // older frontends send this where it is promoted, and save it over what is drawn
    if (state) state.value = text;
  });
  const { view, widget } = editor;
  view.value = spec[1]?.default ?? "[]";
  const picture = pictureFollower();
  const look = () => {
    const link = node.graph.getLink(node.inputs[node.findInputSlot(name)].link);
    const shared = link?.originIsIoNode && !("widgetId" in widget); // older frontends show this very editor where it is promoted
    return { ...picture(node, []), locked: link && !shared ? say("connected") : "" };
  };
  const { onAdded } = node;
  node.onAdded = function (...args) {
    onAdded?.apply(this, args);
    follow(node, editor, look);
  };
  return { widget, minWidth: NODE_SIZE[0], minHeight: NODE_SIZE[1] };
}

/** Gives a promoted input of a subgraph node an editor of its own, in place of the frontend's stand-in, which holds what is sent. */
function promote(host, input) {
  const kept = input._widget;
  const slot = () => host.inputs.indexOf(input);
  let known;
  const keep = (text) => {
    kept.value = known = text;
    const inner = host.subgraph.inputs[slot()].getConnectedWidgets();
    for (const widget of inner) widget.value = text; // for when they are no longer promoted, or unpacked
  };
  const refresh = (view) => {
    if (kept.value === known) return;
    view.value = kept.value;
    kept.value = known = view.value; // what cannot be read is not sent either
  };
  const editor = addEditor(host, input.name, TYPE, keep, refresh);
  input._widget = editor.widget;
  const picture = pictureFollower();
  follow(host, editor, () => {
    refresh(editor.view);
    const { node, hosts } = targetOf(host, slot());
    return { ...picture(node, hosts), locked: input.link == null ? "" : say("connected") };
  });
}

/** Promotes the editor whenever the frontend promotes the drags of what is in a subgraph node. */
function followPromotion(host) {
  host.subgraph.events.addEventListener("widget-promoted", ({ detail }) => {
    if (detail.subgraphNode !== host || host.graph?.getNodeById(host.id) !== host) return; // it is not on the graph yet
    for (const input of host.inputs.filter(({ _widget }) => _widget?.type === TYPE)) {
      if (input.widgetId && !input._widget.element) promote(host, input); // older frontends have no widgetId, and move the editor here
      host.expandToFitContent();
    }
  });
}

document.head.append(Object.assign(document.createElement("link"),
  { rel: "stylesheet", href: new URL("./drag_editor.css", import.meta.url).href }));

/** Before any node is made: what is in locales/. Without it the editor speaks English. */
async function learnWords() {
  try {
    const all = await (await api.fetchApi("/i18n")).json();
    const tables = Object.fromEntries(Object.entries(all).map(([language, words]) => [language, words.readoutGuidance]));
    learn(tables, () => app.extensionManager.setting.get("Comfy.Locale"));
  } catch (error) {
    console.warn("Readout Guidance: no translations,", error);
  }
}

app.registerExtension({
  name: "readout_guidance.drag_editor",
  init: learnWords,
  setup: noteOpenedSubgraphs,
  getCustomWidgets: () => ({ [TYPE]: dragsWidget }),
  nodeCreated: (node) => node.isSubgraphNode?.() && followPromotion(node),
});
