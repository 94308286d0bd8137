/* The editor over a text field: it shows what the field holds, and types what is drawn into it. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { bringInside } from "./drag_fields.js";
import { pictureFollower } from "./drag_picture.js";
import { DragView } from "./drag_view.js";
import { say } from "./words.js";

const ON_CANVAS = "[data-node-id], .dom-widget"; // elsewhere, as in app mode and the side panel, there is a page that scrolls
const MIN_WIDTH = 260;

/** The wheel and the middle button are the canvas's wherever it lies below the editor: they zoom and pan. */
function passToCanvas(element) {
  const pass = (event) => {
    if (!element.closest(ON_CANVAS)) return;
    event.preventDefault();
    event.stopPropagation();
    app.canvas.canvas.dispatchEvent(new event.constructor(event.type, event));
  };
  element.addEventListener("wheel", pass);
  for (const type of ["pointerdown", "pointermove", "pointerup"]) {
    element.addEventListener(type, (event) => (event.button === 1 || event.buttons & 4 ? pass(event) : event.stopPropagation()));
  }
}

/** A node where drags are promoted has room for a text of a few lines. */
function makeRoom(node) {
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width, MIN_WIDTH), Math.max(node.size[1], height)]);
  node.setDirtyCanvas(true, true);
}

export class Overlay {
  #area;
  #owner; // the node, slot and widget that the field is for
  #view = new DragView(() => this.#type(), () => this.#showText());
  #picture = pictureFollower();
  #read; // the text that the view was last given
  #shown; // the picture that the view was last given
  #address = null; // its address

  constructor(area) {
    this.#area = area;
    passToCanvas(this.#view.element);
    area.addEventListener("input", this.#changed);
    this.#place();
  }

  /** Behind the text field. ComfyUI's page may have taken it away, or moved the field. */
  #place() {
    const { element } = this.#view;
    if (this.#area.nextSibling !== element) this.#area.after(element);
    this.#area.classList.add("readout-drags-below"); // it sets the classes anew when it draws the field
  }

  /** Types the drags into the field, as a person would. */
  #type() {
    this.#area.value = this.#read = this.#view.value;
    this.#area.dispatchEvent(new Event("input", { bubbles: true }));
    app.canvas.emitBeforeChange(); // the pair is ComfyUI's sign to compare the graph and note the change
    app.canvas.emitAfterChange();
  }

  #changed = () => bringInside(this.#owner);

  #showText() {
    this.#area.parentElement.classList.toggle("readout-drags-as-text");
  }

  /** Shows what the field holds now; `owner` is the node, slot and widget that it is for. */
  update(owner) {
    const { node, slot, widget } = owner;
    if (!this.#owner) makeRoom(node);
    this.#owner = owner;
    this.#place();
    if (widget?.element === this.#area && this.#area.value !== widget.value) this.#area.value = widget.value;
    if (this.#area.value !== this.#read) this.#view.value = this.#read = this.#area.value;
    const { picture, message } = this.#picture(node, slot);
    if (picture !== this.#shown) { // another object after each run, even where the file has the same name
      this.#shown = picture;
      const { filename, subfolder = "", type } = picture ?? {};
      this.#address = picture ? api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, rand: Math.random() })}`) : null;
    }
    this.#view.show(this.#address, message);
    this.#view.locked = node.inputs[slot].link == null ? "" : say("connected");
  }

  remove() {
    this.#area.removeEventListener("input", this.#changed);
    this.#view.element.remove();
    this.#area.classList.remove("readout-drags-below");
    this.#area.parentElement?.classList.remove("readout-drags-as-text");
  }
}
