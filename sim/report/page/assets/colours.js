// What a span is coloured by, and the colours themselves for a light and a dark ground. The tables come with the page.

const HUES = 60; // at most: with more microbatches, neighbours share one
const [FIRST_HUE, LAST_HUE] = [205, 485]; // blue by violet, red and yellow to green

function fromHue(hue, light) {
  const saturation = 0.6;
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (light - saturation * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return `#${[0, 8, 4].map((n) => channel(n).toString(16).padStart(2, "0")).join("")}`;
}

// Number of the colour of a microbatch among `count`, and how many there are.
export function hueOf(microbatch, count) {
  return count > HUES ? Math.floor((microbatch * HUES) / count) : microbatch;
}

export const huesFor = (count) => Math.min(HUES, Math.max(1, count));

// Microbatches run through the hues in their order; forward is light, backward dark, what belongs to none is grey.
export function microbatchColour(hue, hues, phase, dark) {
  if (hue < 0 || phase === "O") return dark ? "#707780" : "#8a8f98";
  const light = { F: 0.68, B: 0.42, I: 0.42, W: 0.32, R: 0.55 }[phase] ?? 0.5;
  return fromHue((FIRST_HUE + ((LAST_HUE - FIRST_HUE) * hue) / hues) % 360, light);
}

export function parts(colour) {
  return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
}

// Black or white, whichever can be read on it.
export function inkOn(colour) {
  const [red, green, blue] = parts(colour).map((part) => (part / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000000" : "#ffffff";
}

// `share` of a colour on a ground.
export function faded(colour, ground, share) {
  const under = parts(ground);
  const mixed = parts(colour).map((part, i) => Math.round(part * share + under[i] * (1 - share)));
  return `#${mixed.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

// A pixel of an ImageData seen as 32 bits, on the little-endian machines that browsers run on.
export function pixel(colour) {
  const [red, green, blue] = parts(colour);
  return (255 << 24) | (blue << 16) | (green << 8) | red;
}

export class Theme {
  constructor(tables) {
    this.tables = tables;
    this.forced = null;
    this.listeners = [];
    this.query = matchMedia("(prefers-color-scheme: dark)");
    this.query.addEventListener("change", () => this.tell());
    addEventListener("beforeprint", () => this.print(true));
    addEventListener("afterprint", () => this.print(false));
    this.printing = false;
  }

  get dark() {
    if (this.printing) return false;
    return this.forced ? this.forced === "dark" : this.query.matches;
  }

  get ground() {
    return this.dark ? this.tables.ground.dark : this.tables.ground.light;
  }

  // Paper is light, and narrower than most windows: charts are drawn anew for it.
  print(printing) {
    this.printing = printing;
    document.documentElement.classList.toggle("printing", printing);
    this.put();
  }

  toggle() {
    this.forced = this.dark ? "light" : "dark";
    this.put();
  }

  put() {
    const theme = this.printing ? "light" : this.forced;
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    this.tell();
  }

  tell() {
    for (const listener of this.listeners) listener();
  }

  category(name) {
    const colours = this.dark ? this.tables.categories.dark : this.tables.categories.light;
    return colours[name] || (this.dark ? "#707780" : "#bbbbbb");
  }

  kind(name) {
    return this.tables.kinds[name] || "#8a8f98";
  }

  css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
}
