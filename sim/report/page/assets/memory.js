// Memory over time: owners stacked, the capacity as a line. Drawn by uPlot (vendored), under the timeline and moving with it.

import { make } from "./dom.js";
import { bytes, ticksOf } from "./format.js";

const HEIGHT = 210;
const PLACES = { gpu: "GPU memory", host: "host memory, per rank", nvme: "drives, per rank" };
const FAR = 0.35; // of the capacity: with less in use the line would flatten everything, so it is only said

export class Memory {
  constructor(run, app, gutterOf) {
    this.run = run;
    this.app = app;
    this.gutterOf = gutterOf;
    this.pick = make("select", { "aria-label": "Memory of", on: { change: () => this.show(Number(this.pick.value)) } });
    run.memory.forEach((use, number) => this.pick.append(make("option", { value: number }, this.called(use))));
    this.legend = make("div", { className: "legend" });
    this.says = make("p", { className: "note" });
    this.holder = make("div", { className: "memory-plot", role: "img" });
    this.root = make("div", { className: "memory" },
      make("div", { className: "memory-head" }, make("h3", {}, "Memory over time"), this.pick, this.says), this.holder, this.legend);
    this.pick.value = String(this.worst());
    new ResizeObserver(() => this.resize()).observe(this.holder);
  }

  called(use) {
    const { name, device } = this.run.classes[use.class];
    return `${PLACES[use.where]}, ${name} (${device})`;
  }

  // The place that is nearest to its capacity, or exceeds it most.
  worst() {
    const filled = this.run.memory.map((use) => (use.where === "gpu" ? use.peak / use.capacity : -1));
    return filled.indexOf(Math.max(...filled));
  }

  show(number) {
    this.number = number;
    const use = this.run.memory[number];
    const { columns, tick, makespan } = this.run;
    const ticks = columns[`memory${number}_time`];
    const values = columns[`memory${number}_bytes`];
    this.times = [...Array.from(ticks, (one) => one * tick), makespan];
    this.owners = use.owners.map((name, row) => {
      const own = values.subarray(row * ticks.length, (row + 1) * ticks.length);
      return { name, own: [...own, own.at(-1)], colour: this.app.theme.tables.owners[name] || "#bbbbbb" };
    });
    let below = new Float64Array(this.times.length);
    for (const owner of this.owners) {
      below = below.map((value, i) => value + owner.own[i]);
      owner.top = below;
    }
    this.use = use;
    const fits = use.peak <= use.capacity ? "fits" : "DOES NOT FIT";
    this.says.textContent = `peak ${bytes(use.peak)} of ${bytes(use.capacity)} (${fits})`;
    this.holder.setAttribute("aria-label", `${this.called(use)} over time: ${this.says.textContent}; owners at the peak are in the table of memory below`);
    const far = use.peak < FAR * use.capacity;
    this.needs = (far ? use.peak : Math.max(use.peak, use.capacity)) * 1.06 || 1;
    for (const one of this.app.views) if (one.memory?.plot && one.memory !== this) one.memory.build();
    this.build();
  }

  // The top of the axis: of two runs the higher one, so that heights can be compared.
  get most() {
    const beside = this.app.views.map((one) => one.memory).filter((one) => one?.use?.where === this.use.where);
    return Math.max(this.needs, ...beside.map((one) => one.needs));
  }

  build() {
    const { theme } = this.app;
    this.plot?.destroy();
    const stepped = uPlot.paths.stepped({ align: 1 });
    const series = this.owners.toReversed().map((owner) => ({
      label: owner.name, width: 0, fill: owner.colour, paths: stepped, points: { show: false },
    }));
    const data = [this.times, ...this.owners.toReversed().map((owner) => Array.from(owner.top))];
    const axis = {
      stroke: theme.css("--soft"), grid: { stroke: theme.css("--line"), width: 1 }, ticks: { show: false },
      font: `11px ${theme.css("--sans")}`,
    };
    this.plot = new uPlot({
      width: Math.max(80, this.holder.clientWidth), height: HEIGHT, series: [{}, ...series], legend: { show: false },
      padding: [8, 0, 0, 0], cursor: { drag: { x: false, y: false }, y: false, points: { show: false } },
      scales: {
        x: { time: false, range: () => [this.app.window.from, this.app.window.to] }, y: { range: () => [0, this.most] },
      },
      axes: [
        { ...axis, size: 24, values: (_, at) => this.timeWords(at), splits: () => this.timeTicks().map((mark) => mark.at) },
        { ...axis, size: this.gutterOf(), values: (_, at) => at.map((one) => (one ? bytes(one).replace(/\.0+ /, " ") : "0")) },
      ],
      hooks: { draw: [(plot) => this.line(plot)], setCursor: [(plot) => this.point(plot.cursor.idx)] },
    }, data, this.holder);
    this.point(null);
  }

  timeTicks() {
    return ticksOf(this.app.window.from, this.app.window.to, (this.holder.clientWidth - this.gutterOf()) / 90).marks;
  }

  timeWords(at) {
    const words = new Map(this.timeTicks().map((mark) => [mark.at, mark.words]));
    const last = this.app.window.to - (18 / this.holder.clientWidth) * this.app.window.length;
    return at.map((one) => (one <= last && words.get(one)) || ""); // half of a word would be cut at the edge
  }

  // The capacity.
  line(plot) {
    if (this.use.capacity > this.most) return;
    const { ctx: context, bbox } = plot;
    const y = Math.round(plot.valToPos(this.use.capacity, "y", true));
    context.save();
    context.strokeStyle = this.app.theme.css("--ink");
    context.fillStyle = this.app.theme.css("--ink");
    context.lineWidth = devicePixelRatio * 1.5;
    context.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    context.beginPath();
    context.moveTo(bbox.left, y);
    context.lineTo(bbox.left + bbox.width, y);
    context.stroke();
    context.restore();
  }

  // The legend, with what each owner holds at an instant (without one: at its most).
  point(index) {
    const rows = this.owners.toReversed().map((owner) => {
      const value = index === null || index === undefined ? Math.max(...owner.own) : owner.own[index];
      const swatch = make("i", { className: "swatch" });
      swatch.style.background = owner.colour;
      return make("span", {}, swatch, `${owner.name} `, make("b", {}, bytes(value)));
    });
    const when = index === null || index === undefined ? "at most:" : "here:";
    this.legend.replaceChildren(make("span", {}, when), ...rows);
  }

  move() {
    this.plot?.setScale("x", { min: this.app.window.from, max: this.app.window.to });
  }

  resize() {
    const width = this.holder.clientWidth;
    if (!width) return;
    if (!this.plot) this.show(this.number ?? this.worst());
    else if (this.plot.width !== width) this.build();
  }
}
