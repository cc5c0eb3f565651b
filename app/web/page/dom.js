// Elements. Text goes in as text nodes only: nothing on this page parses markup.

/** `el("p.note", { title: "x", onclick: f, vars: { "--share": 0.5 } }, "text", child, ...)`; null children are left out. */
export function el(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name === "vars") {
    // The policy forbids the attribute `style`; properties set by scripts are allowed.
    for (const [property, setting] of Object.entries(value)) element.style.setProperty(property, setting);
  } else if (name.startsWith("on")) {
    element.addEventListener(name.slice(2), value);
  } else if (name === "value" || name === "checked" || name === "disabled") {
    element[name] = value;
  } else {
    element.setAttribute(name, value === true ? "" : value);
  }
}

/** Puts `children` in the place of what the element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A link where `source` is one to the web; else its text, as `javascript:` must not be followed. */
export function sourceOf(source) {
  return /^https?:\/\//i.test(source) ? el("a", { href: source, rel: "noreferrer noopener", target: "_blank" }, source) : source;
}

let ids = 0;

/** A labelled control. */
export function field(label, control, hint = null) {
  control.id ||= `f${++ids}`;
  return el("div.field", {}, el("label", { for: control.id }, label), control, hint && el("small", {}, hint));
}

export function choice(options, chosen, onchange) {
  const select = el("select", { onchange: () => onchange?.(select.value) });
  offer(select, options, chosen);
  return select;
}

/** `options`: [value, label, disabled] each. */
export function offer(select, options, chosen = select.value) {
  fill(select, options.map(([value, label, disabled]) => el("option", { value, disabled }, label)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

export function tick(label, checked, onchange) {
  const box = el("input", { type: "checkbox", checked, onchange: () => onchange?.(box.checked) });
  return { box, root: el("label.tick", {}, box, label) };
}

/** Asks before something is lost. Resolves to whether to go on. */
export function confirmed(question, yes, no) {
  return new Promise((resolve) => {
    const go = () => {
      resolve(true);
      dialog.close();
    };
    const finish = () => {
      resolve(false);
      dialog.remove();
    };
    const buttons = el("div.line.end", {}, el("button.plain", { type: "button", onclick: () => dialog.close() }, no), el("button.danger", { type: "button", onclick: go }, yes));
    const dialog = el("dialog", { role: "alertdialog", "aria-label": question, onclose: finish }, el("p", {}, question), buttons);
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** What a screen reader says, without moving the focus. */
export function announce(text) {
  const region = document.getElementById("status");
  if (region) region.textContent = text;
}
