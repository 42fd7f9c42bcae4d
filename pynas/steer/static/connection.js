// Keeps the model up to date: reads everything once, follows the events, and catches up after a break.

import { debounced, get } from "./api.js";
import { emit, model, select } from "./model.js";

let source = null;
let revision = 0;
let attempts = 0;
let timer = 0;
let basis = "";
let hiddenAt = 0;

const listeners = [];
/** `told({gone, message})`: whether the search answers. */
export const onContact = (told) => listeners.push(told);
const tell = (contact) => listeners.forEach((told) => told(contact));

function take(state) {
  state.offers = { ...model.state?.offers, ...state.offers };
  const old = model.state;
  model.state = state;
  emit("state");
  if (JSON.stringify(old?.allowed) !== JSON.stringify(state.allowed)) emit("allowed");
  // Values and "current" of earlier trials follow from these; the events tell only of new trials.
  const training = state.training?.status === "running" ? null : state.training?.steps;
  const now = JSON.stringify([state.search.weights, state.search.objectives, training]);
  if (old && training !== null && now !== basis) readTrials();
  if (training !== null) basis = now;
}

const readTrials = debounced(150, async () => {
  try {
    model.trials = (await get("api/trials?from=0")).trials;
    emit("trials");
  } catch { /* the events tell whether the search is gone */ }
});
const rank = debounced(800, () => readTrials());

const readActions = debounced(50, async () => {
  try {
    model.actions = (await get("api/actions?from=0")).actions;
    emit("actions");
  } catch { /* as above */ }
});

const readMap = debounced(50, async () => {
  try {
    model.map = await get("api/candidates");
    emit("map");
  } catch { /* as above */ }
});

const takes = {
  state: take,
  trial(trial) {
    model.trials[trial.number] = trial;
    const { map } = model;
    const { id, x, y } = trial.candidate;
    if (id > map.x.length) readMap();
    else {
      if (id === map.x.length) {
        map.x.push(x);
        map.y.push(y);
        map.decisions.push(...trial.decisions);
      }
      map.trial[id] = trial.number;
    }
    if (model.trials.length > 1 && trial.number > 0 && !model.trials[trial.number - 1]) readTrials();
    if (model.state.search.objectives.length > 1 && !model.state.search.weights) rank();
    emit("trials");
  },
  blocks(blocks) {
    model.blocks = blocks;
    emit("blocks");
  },
  curve(point) {
    const last = model.points.at(-1);
    if (last && last.step >= point.step) model.points = model.points.filter((p) => p.step < point.step);
    model.points.push(point);
    emit("points");
  },
  action(action) {
    model.actions[action.number] = action;
    if (["undo", "redo"].includes(action.kind) || model.actions.includes(undefined)) readActions();
    emit("actions");
  },
};

function disconnect() {
  source?.close();
  source = null;
  clearTimeout(timer);
}

function connect() {
  disconnect();
  const session = model.state.session;
  const mine = (source = new EventSource(`api/events?since=${revision}`));
  mine.onopen = () => {
    attempts = 0;
    tell({ gone: false });
  };
  for (const [name, apply] of Object.entries(takes))
    mine.addEventListener(name, (event) => {
      if (mine !== source || model.state.session !== session) return;
      revision = Number(event.lastEventId);
      apply(JSON.parse(event.data));
    });
  mine.addEventListener("reset", () => {
    if (mine !== source) return;
    disconnect();
    load();
  });
  mine.addEventListener("end", () => {
    if (mine !== source) return;
    lost("The search has ended. What it found is in its store; this page connects again when it is resumed.");
  });
  mine.onerror = () => {
    if (mine === source) lost("The search does not answer. The page keeps trying; nothing here is up to date.");
  };
}

function lost(message) {
  disconnect();
  tell({ gone: true, message });
  timer = setTimeout(again, Math.min(5000, 500 * 2 ** attempts++));
}

async function again() {
  try {
    const state = await get("api/state");
    if (state.session === model.state?.session && state.revision >= revision) connect();
    else await load();
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  if (error.status === 401)
    lost("The search was started again with another address: open the one that it printed.");
  else lost(`${error.message[0].toUpperCase()}${error.message.slice(1)}. The page keeps trying; nothing here is up to date.`);
}

/** Read everything anew, then follow. */
export async function load() {
  try {
    const state = await get("api/state");
    const [template, map, trials, blocks, curves, actions] = await Promise.all(
      ["template", "candidates", "trials?from=0", "blocks", "curves?from=0", "actions?from=0"].map(
        (path) => get(`api/${path}`),
      ),
    );
    const another = model.state && model.state.session !== state.session;
    const shape = (given) => JSON.stringify(given?.blocks.map((b) => [b.id, b.label]));
    if (another && shape(template) !== shape(model.template))
      Object.assign(model, { lit: null, pinned: null, block: null, chosen: null, composing: null });
    Object.assign(model, { template, map, blocks, trials: trials.trials, points: curves.points, actions: actions.actions });
    revision = state.revision;
    if (another) select([]);
    // What is built of the template comes before what is painted on it.
    for (const name of "template map trials blocks points actions lit pinned chosen composing".split(" ")) emit(name);
    take(state);
    connect();
  } catch (error) {
    if (error.status === undefined) throw error;
    failed(error);
  }
}

// A browser opens few connections to one server: a page that nobody sees lets go of its own, and catches up later.
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenAt);
  if (document.hidden) hiddenAt = setTimeout(() => model.state && disconnect(), 20000);
  else if (model.state && !source) again();
});
