// Columns of pynas/report/_columns.py, read one value at a time: nothing is made of rows that nobody looks at.
const TYPES = {i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array,
  u4: Uint32Array, f4: Float32Array, f8: Float64Array};

function unpacked(held) {
  const characters = atob(held.data ?? held.bdata), bytes = new Uint8Array(characters.length);
  for (let i = 0; i < characters.length; i++) bytes[i] = characters.charCodeAt(i);
  return new TYPES[held.dtype](bytes.buffer);
}

// A function from a row to its number, null where it is not known.
function numbersOf(held) {
  const values = unpacked(held);
  if (values instanceof Float32Array)
    return row => Number.isNaN(values[row]) ? null : Number(values[row].toPrecision(7));
  return row => Number.isNaN(values[row]) ? null : values[row];
}

// A function from a row to its text.
function textsOf(held) {
  if (held.fixed) {
    const places = held.varying.map(place => ({words: place.words, at: unpacked(place.at)}));
    return row => {
      let place = 0, text = "";
      for (const word of held.fixed) {
        text += word ?? places[place].words[places[place].at[row]];
        if (word === null) place++;
      }
      return text;
    };
  }
  const at = unpacked(held.at);
  if (!held.lengths) return row => held.words[at[row]];
  const starts = [0];
  for (const length of unpacked(held.lengths)) starts.push(starts[starts.length - 1] + length);
  return row => {
    let text = "";
    for (let k = starts[row]; k < starts[row + 1]; k++) text += held.words[at[k]];
    return text;
  };
}

const WHOLE = new Intl.NumberFormat("en", {maximumFractionDigits: 0});  // toLocaleString makes one each time
const FIXED = new Intl.NumberFormat("en", {minimumFractionDigits: 3, maximumFractionDigits: 3});

function shownNumber(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return size < 1000 ? String(value) : WHOLE.format(value);
  if (size < 0.01 || size >= 1e9) return value.toPrecision(4);
  return size >= 1e5 ? WHOLE.format(value) : size < 1000 ? value.toFixed(3) : FIXED.format(value);
}

const shown = value => value === null || value === undefined ? "\u2013"
  : typeof value === "number" ? shownNumber(value) : value;

// Plotly reads its labels as HTML.
const escaped = text => text.replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`);
