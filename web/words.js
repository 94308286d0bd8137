/* What the page's parts say, in the language that ComfyUI is set to: from locales/, else in English. It knows nothing of ComfyUI. */
const ENGLISH = {
  connect_picture: "Connect an image to 'image'",
  run_once: "Run the workflow once to see the image here. You can also draw now.",
  not_loaded: "The image could not be loaded.",
  connected: "'drags' is connected, so you cannot draw here. If it is promoted to a subgraph node, draw on the subgraph node.",
  unreadable: "The drags in the text cannot be shown here. They are sent unchanged. If you draw, they are replaced.",
  hint: "Drag to draw, or drag an arrow or its ends. Keys: Enter adds, Tab selects, arrow keys move.",
  selected: "Drag <number> of <count>: <start> to <end>. Keys: arrow keys move it (Shift: farther, Alt: only its end), Delete deletes it.",
  editor: "Drag editor: Enter adds a drag, Tab selects the next, arrow keys move it (Shift: farther, Alt: only its end)",
  undo: "Undo",
  undo_about: "Undo (Ctrl+Z)",
  redo: "Redo",
  redo_about: "Redo (Ctrl+Shift+Z)",
  delete: "Delete",
  delete_about: "Delete the selected drag (Delete)",
  clear: "Clear",
  clear_about: "Delete all drags",
  text: "Text",
  text_about: "Show the drags as text or as arrows",
};
let languages = {};
let chosen = () => "en";

/** `tables` are by language what ENGLISH is; `language` is a function that tells the one that is set now. */
export function learn(tables, language) {
  languages = tables;
  chosen = language;
}

export function say(key, values = {}) {
  const text = languages[chosen()]?.[key] ?? ENGLISH[key];
  return text.replace(/<(\w+)>/g, (_whole, name) => values[name]);
}
