// What the page knows of the search, and what the analyst looks at. Views listen; nothing here draws.

const bus = new EventTarget();

export const model = {
  state: null,
  template: null,
  map: null, // columns, as the search sends them
  trials: [],
  blocks: null,
  points: [],
  actions: [],
  lit: null, // decisions of the candidate under the pointer or chosen for a look
  pinned: null, // decisions of the candidate whose panel is open
  block: null, // id of the block under the pointer
  chosen: null, // id of the block whose panel is open
  selection: new Set(), // candidates' ids
  composing: null, // decisions of a candidate that is put together in the template
};

export function emit(name) {
  bus.dispatchEvent(new Event(name));
}

// While a button or key is down nothing is drawn anew: what is being pressed must still be there when it is let go.
let pressed = false;
const released = [];
addEventListener("pointerdown", () => (pressed = true), true);
addEventListener("keydown", (event) => event.key === " " && (pressed = true), true);
for (const name of ["pointerup", "pointercancel", "keyup", "blur"])
  addEventListener(name, () => {
    pressed = false;
    setTimeout(() => released.splice(0).forEach((run) => run()));
  }, true);

// A view that takes long is drawn less often, so that what is small and new does not wait for it.
const REST = 4;

/**
 * Call `run` after any of the events, at most once for each frame that is drawn, and once in `every` milliseconds.
 * With `every`, it rests for some times as long as it took.
 */
export function onAny(names, run, every = 0) {
  let waiting = false;
  let last = -Infinity;
  let rest = every;
  const now = () => {
    if (pressed) return released.push(now);
    waiting = false;
    last = performance.now();
    if (model.state) run();
    if (every) rest = Math.max(every, REST * (performance.now() - last));
    return undefined;
  };
  const later = () => {
    if (waiting) return;
    waiting = true;
    const left = last + rest - performance.now();
    if (document.hidden || left > 17) setTimeout(now, document.hidden ? 200 : left);
    else requestAnimationFrame(now);
  };
  for (const name of names.split(" ")) bus.addEventListener(name, later);
}

const same = (a, b) => a === b || (Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((v, i) => v === b[i]));

function set(name, value) {
  if (same(model[name], value)) return;
  model[name] = value;
  emit(name);
}

export const light = (decisions) => set("lit", decisions);
export const pin = (decisions) => set("pinned", decisions);
export const point = (block) => set("block", block);
export const choose = (block) => set("chosen", block);
export const compose = (decisions) => set("composing", decisions);

export function select(ids) {
  model.selection = new Set(ids);
  emit("selection");
}

/** Decisions of a candidate of the map. */
export function decisionsOf(id) {
  const per = model.map.decisions_per;
  return model.map.decisions.slice(id * per, (id + 1) * per);
}

export function candidateOf(decisions) {
  const { decisions: all, decisions_per: per } = model.map;
  for (let id = 0; id * per < all.length; id++) {
    let d = 0;
    while (d < per && all[id * per + d] === decisions[d]) d++;
    if (d === per) return id;
  }
  return null;
}

export function trialOf(id) {
  const trial = model.map.trial[id];
  return trial === null ? null : model.trials[trial] ?? null;
}

export function isAllowed(decisions) {
  return decisions.every((choice, d) => model.state.allowed[d].includes(choice));
}

export function blockOf(id) {
  return model.template.blocks.find((block) => block.id === id) ?? null;
}

export function layerOf(decision) {
  return model.template.layers.find((layer) => layer.decision === decision) ?? null;
}

export function fitnessOf(id) {
  return model.blocks?.blocks.find((block) => block.id === id) ?? null;
}

export function isBlockAllowed(block) {
  return model.state.allowed[block.decision].includes(block.choice);
}

/** The newest trial of exactly these decisions. */
export function trialWith(decisions) {
  for (let i = model.trials.length - 1; i >= 0; i--)
    if (same(model.trials[i].decisions, decisions)) return model.trials[i];
  return null;
}

/** Names of the choices, for reading aloud and in lists. */
export function described(decisions) {
  return decisions.map((choice, d) => {
    const block = model.template.blocks.find((each) => each.decision === d && each.choice === choice);
    return `${layerOf(d)?.label ?? d}: ${block?.label ?? choice}`;
  });
}
