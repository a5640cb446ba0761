// Which rows are trained on when, and at what rate: the same numbers as in every other runner.

function mixed(x) {
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d);
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The order of an epoch's rows: row numbers sorted by a hash of seed, epoch and row. */
export function orderOf(seed, epoch, count) {
  const start = mixed((epoch + mixed(seed >>> 0)) | 0);
  const keys = new Uint32Array(count);
  for (let i = 0; i < count; i++) keys[i] = mixed((i + start) | 0);
  if (count <= 2 ** 21) { // key and row together are exact in a double, and typed arrays sort without a function
    const pairs = Float64Array.from(keys, (key, i) => key * 2 ** 21 + i).sort();
    return Int32Array.from(pairs, (pair) => pair % 2 ** 21);
  }
  return Int32Array.from(keys.keys()).sort((a, b) => keys[a] - keys[b]);
}

const cosine = (x) => 0.5 * (1 + Math.cos(Math.PI * x));

const COURSES = {
  constant: () => 1,
  linear: (x) => 1 - x,
  cosine,
  step: (x) => 0.1 ** ((x >= 0.5) + (x >= 0.75)),
  'one-cycle': (x) => (x < 0.3
    ? 1 / 25 + (1 - 1 / 25) * (1 - cosine(x / 0.3))
    : 1 / 25e4 + (1 - 1 / 25e4) * cosine((x - 0.3) / 0.7)),
};

/** What the learning rate of a step is multiplied by, the step being number `position` of `total`. */
export function rateFactor(kind, position, total, warmup = 0) {
  if (position < warmup) return (position + 1) / (warmup + 1);
  const x = total > warmup ? Math.min((position - warmup) / (total - warmup), 1) : 0;
  return COURSES[kind](x);
}

/** Rounds halves to even numbers, as the exporter does. */
export function rounded(x) {
  const nearest = Math.round(x);
  return Math.abs(x % 1) === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
}
