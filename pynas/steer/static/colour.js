// One scale of colours for scores: light and dark ends differ in lightness, so that it reads without colour vision too.

const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

export function rgb(share) {
  const at = Math.min(1, Math.max(0, share)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(at));
  return STOPS[low].map((value, i) => Math.round(value + (STOPS[low + 1][i] - value) * (at - low)));
}

/** Where the scale begins and ends: from the 5th percentile on, so that one failure does not flatten the rest. */
export function range(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const low = sorted[Math.floor(0.05 * (sorted.length - 1))];
  return { low, high: sorted.at(-1), clipped: low > sorted[0] };
}

export const shareOf = (value, { low, high }) => (high > low ? (value - low) / (high - low) : 1);
export const gradient = () => `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((s) => `rgb(${rgb(s).join(",")})`).join(",")})`;

/** A colour of the style sheet. */
export const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
