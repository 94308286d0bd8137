/* Lays the drag editor over each text field that holds drags: on Drag Targets, on subgraph nodes where their drags are promoted, in app mode
 * and in the side panel. The drags are the text itself, which is ComfyUI's own widget: it is saved, copied, undone and sent without this file. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { fieldsOnPage, markDrags } from "./drag_fields.js";
import { noteOpenedSubgraphs } from "./drag_picture.js";
import { Overlay } from "./drag_overlay.js";
import { learn } from "./words.js";

const NODE = "ReadoutDragTarget";
const NODE_SIZE = [360, 600]; // when it is new
const LOOK_EVERY = 300; // milliseconds

const overlays = new Map(); // by text field; null where the editor failed

/** Brings the page's editors up to date. */
function update() {
  const fields = fieldsOnPage();
  for (const [area, field] of fields) {
    try {
      if (!overlays.has(area)) overlays.set(area, new Overlay(area));
      overlays.get(area)?.update(field);
    } catch (error) {
      fail(error, area);
    }
  }
  for (const [area, overlay] of overlays) {
    if (fields.has(area)) continue;
    overlay?.remove();
    overlays.delete(area);
  }
}

/** Takes the editor away where it failed. The text stays as it is, to be read and edited. */
function fail(error, ...areas) {
  console.error("Readout Guidance: the drag editor failed, and its text is shown instead:", error);
  for (const area of areas) {
    overlays.get(area)?.remove();
    overlays.set(area, null);
  }
}

/** Looks again and again, for no single event tells of all that can change the editors. */
function look() {
  try {
    update();
    setTimeout(look, LOOK_EVERY);
  } catch (error) {
    fail(error, ...overlays.keys());
  }
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
  setup() {
    noteOpenedSubgraphs();
    look();
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    markDrags(node);
    node.setSize([Math.max(node.size[0], NODE_SIZE[0]), Math.max(node.size[1], NODE_SIZE[1])]);
  },
});
