// Brings the page to life: unpacks the runs, puts timeline, memory and pipeline into their places, wires the tools.
// Everything that is only to be read is in the page already and needs none of this.

import { Theme } from "./colours.js";
import { facts, make } from "./dom.js";
import { count } from "./format.js";
import { Grid } from "./grid.js";
import { Hands, Tooltip, shownTime } from "./hands.js";
import { Lanes } from "./lanes.js";
import { Memory } from "./memory.js";
import { Spans } from "./spans.js";
import { unpack } from "./unpack.js";
import { TimeWindow } from "./window.js";

const MODES = [["category", "kind of work"], ["microbatch", "microbatch"], ["bound", "what sets its duration"]];

class App {
  constructor(data) {
    this.theme = new Theme(data.tables);
    this.labels = data.tables.labels;
    this.window = new TimeWindow(Math.max(...data.runs.map((run) => run.makespan)) || 1);
    this.mode = "category";
    this.onlyPath = false;
    this.timings = [];
    this.tooltip = new Tooltip();
    this.views = [];
    data.runs.forEach((run, number) => this.views.push(this.view(run, number)));
    this.panel = document.getElementById("chosen");
    this.tools(document.getElementById("tools"));
    this.window.listeners.push(() => this.moved());
    this.theme.listeners.push(() => this.recolour());
    document.getElementById("theme").addEventListener("click", () => this.theme.toggle());
    this.moved();
  }

  view(run, number) {
    const spans = new Spans(run, this.labels);
    const lanes = new Lanes(run, spans, this);
    const gutterOf = () => lanes.gutter;
    const hands = new Hands(lanes, this.tooltip);
    const memory = run.memory.length ? new Memory(run, this, gutterOf) : null;
    document.getElementById(`timeline-${number}`).replaceChildren(lanes.scroll, ...(memory ? [memory.root] : []));
    const place = document.getElementById(`grid-${number}`);
    const grid = place ? new Grid(run, spans.microbatches, this, gutterOf) : null;
    place?.replaceChildren(grid.root);
    return { run, spans, lanes, hands, memory, grid };
  }

  tools(place) {
    this.box = make("input", { type: "search", placeholder: "op, category, layer 4, mb 3", "aria-label": "Search spans" });
    this.found = make("output", { className: "found" });
    let waiting = 0;
    this.box.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.search(), 120);
    });
    this.box.addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        this.next(event.shiftKey);
      }
    });
    this.path = make("input", { type: "checkbox", on: { change: () => this.togglePath(this.path.checked) } });
    const mode = make("select", { on: { change: () => this.setMode(mode.value) } });
    for (const [value, words] of MODES) mode.append(make("option", { value }, words));
    this.shown = make("output", { className: "shown" });
    const several = this.views.some(({ run }) => run.classes.length > 1);
    const button = (words, label, act) => make("button", { type: "button", "aria-label": label, title: label, on: { click: act } }, words);
    place.replaceChildren(...[
      make("label", {}, "Colour by ", mode),
      make("label", {}, this.path, " Critical path only"),
      several ? button("All lanes", "Open or close the lanes of all ranks", () => this.toggleLanes()) : null,
      make("span", { className: "group" }, this.box, button("‹", "Last match", () => this.next(true)),
        button("›", "Next match", () => this.next(false)), this.found),
      make("span", { className: "group end" }, this.shown, button("−", "Zoom out", () => this.window.zoom(1 / 2)),
        button("+", "Zoom in", () => this.window.zoom(2)), button("Whole step", "Show the whole step", () => this.window.fit())),
    ].filter(Boolean));
    this.legend = document.getElementById("colours");
    this.recolour();
  }

  moved() {
    for (const { lanes, memory, grid } of this.views) {
      lanes.draw();
      memory?.move();
      grid?.draw();
    }
    this.shown.textContent = shownTime(this.window);
  }

  recolour() {
    for (const { lanes, memory, grid } of this.views) {
      lanes.recolour();
      if (memory?.plot) memory.build();
      grid?.recolour();
    }
    this.drawLegend();
  }

  drawLegend() {
    const names = new Map();
    for (const { spans } of this.views) {
      const scheme = spans.scheme(this.mode, this.theme);
      scheme.names?.forEach((name, i) => names.set(this.nameOf(name), scheme.colours[i]));
    }
    const items = [...names].map(([name, colour]) => {
      const swatch = make("i", { className: "swatch" });
      swatch.style.background = colour;
      return make("span", {}, swatch, name);
    });
    const said = "microbatches from the first (blue) to the last (green); forward light, backward dark, the rest grey";
    this.legend.replaceChildren(...(items.length ? items : [said]));
  }

  nameOf(name) {
    return (this.mode === "bound" ? this.theme.tables.bound[name] : this.labels[name]) || name;
  }

  setMode(mode) {
    this.mode = mode;
    this.recolour();
  }

  togglePath(on = !this.onlyPath) {
    this.onlyPath = on;
    this.path.checked = on;
    for (const { lanes } of this.views) lanes.recolour();
  }

  toggleLanes() {
    for (const { lanes } of this.views) lanes.toggleAll();
  }

  focusSearch() {
    this.box.focus();
    this.box.select();
  }

  search() {
    let found = 0;
    for (const { spans, lanes } of this.views) {
      spans.search(this.box.value);
      found += spans.found;
      lanes.recolour();
    }
    this.found.textContent = this.box.value.trim() ? `${count(found)} ${found === 1 ? "span" : "spans"}` : "";
  }

  // The next match of the run in which something is chosen, or of the first that has one.
  next(backwards) {
    const view = this.views.find(({ lanes, spans }) => lanes.selected >= 0 && spans.found) || this.views.find(({ spans }) => spans.found);
    if (!view) return;
    const span = view.spans.neighbour(view.lanes.selected, backwards);
    if (span >= 0) this.choose(view.lanes, span);
  }

  choose(lanes, span) {
    for (const view of this.views) if (view.lanes !== lanes && view.lanes.selected >= 0) view.lanes.select(-1);
    lanes.select(span);
    if (span < 0) {
      this.panel.replaceChildren(make("p", { className: "note" }, "Choose a span to read all that is recorded of it."));
      return;
    }
    const { spans } = lanes;
    const causes = spans.reasons(span).map(([words, cause]) => make("p", {}, `${words} `,
      make("button", { type: "button", className: "link", on: { click: () => this.choose(lanes, cause) } },
        `${spans.title(cause)} (${spans.place(cause)})`)));
    const why = causes.length ? [make("h3", {}, "Why not earlier"), ...causes] : [];
    this.panel.replaceChildren(make("h3", {}, spans.title(span)), facts(spans.facts(span)), ...why);
  }
}

// Rows of the scenario that hold every word of the filter.
function filterSettings() {
  const box = document.getElementById("filter");
  const rows = [...document.querySelectorAll("#settings tbody tr")];
  const said = rows.map((row) => row.textContent.toLowerCase());
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => said[i].includes(word));
    });
  });
}

async function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  await Promise.all(data.runs.map(unpack));
  window.stepline = new App(data);
  window.stepline.readyAt = performance.now();
  document.documentElement.dataset.ready = "yes";
}

filterSettings();
start().catch((error) => {
  document.documentElement.dataset.ready = "no";
  document.getElementById("tools").textContent = `The charts need a browser of 2023 or newer (${error}). All tables are complete without them.`;
});
