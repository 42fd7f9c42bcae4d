// Questions to the searching process. Every failure is a Failure whose message is written for the analyst.

export class Failure extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function failure(response) {
  try {
    const { error } = await response.json();
    return new Failure(response.status, error.code, error.message);
  } catch {
    return new Failure(response.status, "error", `the search answered ${response.status}`);
  }
}

export async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Failure(0, "gone", "the search does not answer");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

export const get = async (path) => (await ask(path)).json();

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** What several calls in a row ask for, once they have stopped. */
export function debounced(milliseconds, run) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...given), milliseconds);
  };
}
