// Elements and texts. Whatever comes from the search is set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (["value", "checked", "disabled", "hidden", "selected"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Put these into an element in place of what it holds; nothing stands for nothing. */
export function put(element, ...children) {
  element.replaceChildren();
  return filled(element, null, children);
}

export const $ = (id) => document.getElementById(id);

export function button(label, title, onclick, attributes) {
  return h("button", { type: "button", title, onclick, ...attributes }, label);
}

let ids = 0;

/** A label and its control, one above the other. */
export function field(label, control, attributes) {
  control.id ||= `field-${++ids}`;
  return h("div", { class: "field", ...attributes }, h("label", { for: control.id }, label), control);
}

/** Set a text or an attribute where it differs: what stays as it is costs no layout and is not read aloud again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function set(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

const grouped = new Intl.NumberFormat("en");

/** A number for reading: few significant digits, or a dash where there is none. */
export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return grouped.format(value);
  const size = Math.abs(value);
  if (size >= 1e9 || (size !== 0 && size < 1e-4)) return value.toExponential(2);
  if (size >= 1e4) return grouped.format(Math.round(value));
  return String(Number(value.toPrecision(digits)));
}

export function signed(value, digits = 3) {
  return value > 0 ? `+${number(value, digits)}` : number(value, digits);
}

/** A whole number that came as text, since it may exceed what a number holds. */
export function count(text) {
  if (text === null || text === undefined) return "unknown";
  if (text.length > 15) return `${text[0]}.${text.slice(1, 3)} × 10^${text.length - 1}`;
  return grouped.format(Number(text));
}

export function many(n, noun) {
  return `${grouped.format(n)} ${noun}${n === 1 ? "" : "s"}`;
}

export function prefersStill() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
