// Numbers as people read them: three digits, a unit that leaves 1 to 999 before the point.

const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];

function digits(value, count = 3) {
  const text = value.toPrecision(count);
  return text.includes("e") ? String(Number(text)) : text;
}

export function seconds(value, count = 3) {
  if (value === 0) return "0 s";
  const size = Math.abs(value);
  if (size >= 0.9995) return `${digits(value, count)} s`;
  if (size >= 0.9995e-3) return `${digits(value * 1e3, count)} ms`;
  if (size >= 0.9995e-6) return `${digits(value * 1e6, count)} µs`;
  return `${digits(value * 1e9, count)} ns`;
}

// An instant, to a hundredth of a length that matters beside it.
export function instant(value, length) {
  const count = value > 0 && length > 0 ? Math.ceil(Math.log10(value / length)) + 2 : 3;
  return seconds(value, Math.min(Math.max(count, 3), 12));
}

export function scaled(value, unit) {
  if (value === 0) return `0 ${unit}`;
  const [factor, prefix] = PREFIXES.find(([size]) => Math.abs(value) >= 0.9995 * size) || PREFIXES.at(-1);
  return `${digits(value / factor)} ${prefix}${unit}`;
}

export const bytes = (value) => scaled(value, "B");

export const count = (value) => value.toLocaleString("en-US");

// Round positions for ticks of an axis from `from` to `to`, about `wanted` of them, and the words for each.
export function ticksOf(from, to, wanted) {
  const raw = (to - from) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= raw * 0.999);
  const [unit, factor] = to >= 1 ? ["s", 1] : to >= 1e-3 ? ["ms", 1e3] : ["µs", 1e6];
  const places = Math.min(9, Math.max(0, Math.ceil(-Math.log10(step * factor) - 1e-9)));
  const marks = [];
  for (let n = Math.ceil(from / step - 1e-6); n * step <= to + step * 1e-6; n += 1) {
    marks.push({ at: n * step, words: (n * step * factor).toFixed(places) });
  }
  return { unit, marks };
}
