/* The editor itself: a picture with arrows on it, by pointer and by keyboard. It knows nothing of ComfyUI. */
import { format, hasLength, inside, moved, parse, partAt } from "./drags.js";
import { say } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 8; // around the picture, so that handles at its border can be seen and grabbed
const REACH = { mouse: 8, touch: 20, pen: 12 }; // how near a press has to come, in pixels of the screen
const DEAD_ZONE = 4; // pixels of the screen that a press may wander and still be a click
const STEP = 0.01;
const LARGE_STEP = 0.05;
const NEW_DRAG = [[0.4, 0.5], [0.6, 0.5]];
const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** One drag on the screen, from its points in pixels. */
function arrow(points, selected) {
  const tip = points[points.length - 1];
  const before = points.findLast((point) => point[0] !== tip[0] || point[1] !== tip[1]) ?? tip;
  const length = Math.hypot(tip[0] - before[0], tip[1] - before[1]);
  const [ux, uy] = length ? [(tip[0] - before[0]) / length, (tip[1] - before[1]) / length] : [0, 0];
  const size = Math.min(14, length * 0.7);
  const neck = [tip[0] - ux * size, tip[1] - uy * size];
  const head = [tip, [neck[0] - uy * size * 0.55, neck[1] + ux * size * 0.55],
    [neck[0] + uy * size * 0.55, neck[1] - ux * size * 0.55]];
  const shaft = [...points.slice(0, -1), neck].join(" ");
  const dot = { cx: points[0][0], cy: points[0][1], r: 4.5 };
  const group = shape("g", { class: selected ? "arrow selected" : "arrow" });
  for (const layer of ["edge", "ink"]) { // a dark edge below the bright ink reads on any picture
    group.append(shape("polyline", { class: `${layer} shaft`, points: shaft }), shape("circle", { class: `${layer} dot`, ...dot }),
      shape("polygon", { class: `${layer} head`, points: head.join(" ") }));
  }
  if (selected) for (const [cx, cy] of [points[0], tip]) group.append(shape("circle", { class: "handle", cx, cy, r: 8 }));
  return group;
}

export class DragView {
  #drags = [];
  #selected = null; // index of a drag
  #gesture = null; // what the pressed pointer is doing
  #settled = "[]"; // the text as of the last finished change
  #undo = [];
  #redo = [];
  #unreadable = false;
  #locked = ""; // why nothing can be drawn
  #message = ""; // about the picture
  #aspect = 1;
  #frame = { x: 0, y: 0, width: 0, height: 0 }; // of the picture, in pixels of the stage
  #loading = null;
  #onChange;

  /** `onChange` is called after each finished change that the user made, `showText` where they ask for the drags as text. */
  constructor(onChange, showText) {
    this.#onChange = onChange;
    this.frame = shape("rect", { class: "frame" });
    this.image = shape("image", { preserveAspectRatio: "none" });
    this.arrows = shape("g");
    this.stage = shape("svg", { class: "stage", "aria-hidden": "true" }, this.frame, this.image, this.arrows);
    this.message = element("div", { class: "message" });
    this.status = element("div", { class: "status", role: "status" });
    const button = (name, act) => {
      const made = element("button", { type: "button", title: say(`${name}_about`) }, say(name));
      made.addEventListener("click", () => {
        act();
        this.element.focus({ preventScroll: true }); // a button that is now disabled would lose the focus to the page
      });
      return made;
    };
    this.buttons = {
      undo: button("undo", () => this.#travel(this.#undo, this.#redo)),
      redo: button("redo", () => this.#travel(this.#redo, this.#undo)),
      delete: button("delete", () => this.#delete()),
      clear: button("clear", () => this.#clear()),
      text: button("text", showText),
    };
    this.element = element("div", {
      class: "readout-drags", tabindex: "0", role: "application",
      "aria-label": say("editor"),
    }, element("div", { class: "picture" }, this.stage, this.message),
    element("div", { class: "bar" }, ...Object.values(this.buttons)), this.status);

    this.stage.addEventListener("pointerdown", (event) => this.#press(event));
    this.stage.addEventListener("pointermove", (event) => this.#move(event));
    this.stage.addEventListener("pointerup", (event) => this.#release(event));
    this.stage.addEventListener("pointercancel", () => this.#gesture && this.#cancel());
    this.element.addEventListener("keydown", (event) => this.#keydown(event));
    this.element.addEventListener("keyup", (event) => event.key in DIRECTIONS && this.#finish());
    this.element.addEventListener("blur", () => this.#gesture || this.#finish());
    new ResizeObserver(() => this.#layout()).observe(this.stage);
    this.#render();
  }

  get value() {
    return format(this.#drags);
  }

  /** Sets the drags from outside; that ends whatever was going on, and the history with it. */
  set value(text) {
    if (text === this.value) return;
    const drags = parse(text);
    this.#unreadable = drags === null;
    this.#drags = drags ?? [];
    this.#settled = this.value;
    this.#selected = null;
    this.#undo.length = this.#redo.length = 0;
    this.#letGo();
    this.#render();
  }

  /** With a reason the editor says it and takes no drags, and shows none, for they do not count. */
  set locked(reason) {
    if (reason === this.#locked) return;
    if (this.#gesture) this.#cancel();
    this.#finish();
    this.#locked = reason;
    this.element.classList.toggle("locked", reason !== "");
    this.#select(null);
  }

  /** Shows the picture at an address, or with null none; `message` says what to do where there is none. */
  show(address, message) {
    if (!address) this.#say(message);
    if (address === this.#loading) return;
    this.#loading = address;
    if (!address) return this.image.removeAttribute("href");
    const picture = new Image();
    picture.onload = () => {
      if (this.#loading !== address) return;
      this.#say("");
      this.#aspect = picture.naturalWidth / picture.naturalHeight;
      this.image.setAttribute("href", address);
      this.#layout();
    };
    picture.onerror = () => {
      if (this.#loading !== address) return;
      this.image.removeAttribute("href");
      this.#say(say("not_loaded"));
    };
    picture.src = address;
  }

  #say(message) {
    if (message === this.#message) return;
    this.#message = message;
    this.#render();
  }

  // Pointer

  /** Where an event is, in 0 to 1 of the picture. The measured rectangle has the canvas's zoom in it. */
  #at(event) {
    const { left, top, width, height } = this.frame.getBoundingClientRect();
    return [inside((event.clientX - left) / width), inside((event.clientY - top) / height)];
  }

  #hit(event) {
    const { left, top, width, height } = this.frame.getBoundingClientRect();
    const onScreen = (drag) => drag.map(([x, y]) => [left + x * width, top + y * height]);
    const order = this.#drags.map((_drag, index) => index).reverse(); // the last is drawn on top
    if (this.#selected !== null) order.unshift(this.#selected);
    for (const index of order) {
      const part = partAt(onScreen(this.#drags[index]), [event.clientX, event.clientY], REACH[event.pointerType] ?? REACH.mouse);
      if (part) return { index, part };
    }
    return null;
  }

  #press(event) {
    if (event.button !== 0 || !event.isPrimary || this.#locked) return;
    event.stopPropagation(); // neither the node nor the canvas is to move
    event.preventDefault(); // no text selection, no drag of the picture
    this.element.focus({ preventScroll: true });
    this.#finish();
    const hit = this.#hit(event);
    this.#selected = hit?.index ?? null;
    this.#gesture = { pointer: event.pointerId, from: this.#at(event), x: event.clientX, y: event.clientY, moving: false,
                      part: hit?.part, drag: hit && this.#drags[hit.index] };
    this.stage.setPointerCapture(event.pointerId);
    this.#render();
  }

  #move(event) {
    const gesture = this.#gesture;
    if (event.pointerId !== gesture?.pointer) return;
    event.stopPropagation();
    const wandered = Math.hypot(event.clientX - gesture.x, event.clientY - gesture.y);
    if (!gesture.moving && wandered < DEAD_ZONE) return;
    const [x, y] = this.#at(event);
    if (!gesture.moving && !gesture.drag) {
      gesture.part = "end";
      gesture.drag = [gesture.from, gesture.from];
      this.#selected = this.#drags.push(gesture.drag) - 1;
    }
    gesture.moving = true;
    this.#drags[this.#selected] = moved(gesture.drag, gesture.part, [x - gesture.from[0], y - gesture.from[1]]);
    this.#render();
  }

  #release(event) {
    if (event.pointerId !== this.#gesture?.pointer) return;
    event.stopPropagation();
    this.#letGo();
    this.#finish();
  }

  #letGo() {
    this.#gesture = null;
    this.#layout(); // which waited for this
  }

  #cancel() {
    this.#letGo();
    this.#drags = parse(this.#settled);
    this.#select(this.#selected);
  }

  // Keyboard

  #keydown(event) {
    if (!this.#command(event)) return;
    event.preventDefault();
    event.stopPropagation();
    // ComfyUI's change tracker has seen the event first, on the window, and reads it once more a frame later: it must
    // not find the keys of its own undo and redo in it.
    Object.defineProperty(event, "key", { value: "" });
  }

  /** Does what a key stands for; false where it is not one of the editor's. */
  #command(event) {
    if (this.#locked) return false;
    if (event.ctrlKey || event.metaKey) {
      const key = event.altKey ? "" : event.key.toLowerCase();
      if (key === "z" && !event.shiftKey) this.#travel(this.#undo, this.#redo);
      else if (key === "z" || (key === "y" && !event.shiftKey)) this.#travel(this.#redo, this.#undo);
      else return false;
      return true;
    }
    if (event.key === "Delete" || event.key === "Backspace") { // even with nothing selected: the node is not to go
      this.#delete();
      return true;
    }
    if (event.key === "Escape") return this.#escape();
    if (event.target !== this.element) return false; // the buttons have their own
    if (event.key === "Tab") return this.#cycle(event.shiftKey ? -1 : 1);
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      this.#finish();
      this.#selected = this.#drags.push(NEW_DRAG) - 1;
      this.#finish();
      return true;
    }
    const direction = DIRECTIONS[event.key];
    if (!direction || this.#selected === null || this.#gesture) return false;
    const step = direction.map((axis) => axis * (event.shiftKey ? LARGE_STEP : STEP));
    this.#drags[this.#selected] = moved(this.#drags[this.#selected], event.altKey ? "end" : "whole", step);
    this.#render(); // finished when the key is released, so that a held key is one change
    return true;
  }

  #escape() {
    if (this.#gesture) this.#cancel();
    else if (this.#selected === null) return false;
    this.#finish();
    this.#select(null);
    return true;
  }

  /** Selects the next drag; past the last one, Tab leaves the editor as it leaves any other. */
  #cycle(step) {
    const next = this.#selected === null ? (step > 0 ? 0 : this.#drags.length - 1) : this.#selected + step;
    if (!(next in this.#drags)) return false;
    this.#finish();
    this.#select(next);
    return true;
  }

  // Changes

  #select(index) {
    this.#selected = index in this.#drags ? index : null;
    this.#render();
  }

  #delete() {
    if (this.#gesture) this.#cancel();
    this.#finish();
    if (this.#selected === null) return;
    this.#drags.splice(this.#selected, 1);
    this.#select(null);
    this.#finish();
  }

  #clear() {
    this.#finish();
    this.#drags = [];
    this.#select(null);
    this.#finish();
  }

  #travel(from, to) {
    if (this.#gesture) this.#cancel();
    this.#finish();
    if (!from.length) return;
    to.push(this.#settled);
    this.#settled = from.pop();
    this.#drags = parse(this.#settled);
    this.#select(null);
    this.#onChange();
  }

  /** Ends a change: what came of it enters the history and is told, if it is anything. */
  #finish() {
    const kept = this.#drags.filter(hasLength);
    if (kept.length < this.#drags.length) this.#selected = null;
    this.#drags = kept;
    const changed = this.value !== this.#settled;
    if (changed) {
      this.#undo.push(this.#settled);
      this.#redo.length = 0;
      this.#settled = this.value;
      this.#unreadable = false;
    }
    this.#render();
    if (changed) this.#onChange();
  }

  // Drawing

  #layout() {
    if (this.#gesture) return; // the picture stays where it is under the pointer while the texts around it change
    const width = this.stage.clientWidth - 2 * MARGIN;
    const height = this.stage.clientHeight - 2 * MARGIN;
    if (width <= 0 || height <= 0) return; // not shown now
    const fitted = Math.min(width, height * this.#aspect);
    this.#frame = { x: MARGIN + (width - fitted) / 2, y: MARGIN + (height - fitted / this.#aspect) / 2, width: fitted,
                    height: fitted / this.#aspect };
    for (const part of [this.frame, this.image]) {
      for (const [key, value] of Object.entries(this.#frame)) part.setAttribute(key, value);
    }
    this.#render();
  }

  #render() {
    const { x, y, width, height } = this.#frame;
    const shown = this.#locked ? [] : this.#drags;
    const order = shown.map((_drag, index) => index).sort((a, b) => (a === this.#selected) - (b === this.#selected));
    this.arrows.replaceChildren(...order.map((index) => arrow(
      this.#drags[index].map((point) => [x + point[0] * width, y + point[1] * height]), index === this.#selected)));
    this.buttons.undo.disabled = this.#locked || !this.#undo.length;
    this.buttons.redo.disabled = this.#locked || !this.#redo.length;
    this.buttons.delete.disabled = this.#selected === null;
    this.buttons.clear.disabled = this.#locked || !this.#drags.length;
    this.message.textContent = this.#locked || this.#message;
    const hint = this.#unreadable ? say("unreadable") : this.#selected === null ? say("hint") : this.#described(this.#selected);
    this.status.textContent = this.#locked ? "" : hint;
  }

  #described(index) {
    const drag = this.#drags[index];
    const place = ([x, y]) => `(${x.toFixed(2)}, ${y.toFixed(2)})`;
    return say("selected", { number: index + 1, count: this.#drags.length, start: place(drag[0]), end: place(drag[drag.length - 1]) });
  }
}
