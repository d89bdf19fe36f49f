// The timeline of a run: a lane for each rank class and stream under a lane of the critical path, drawn on one canvas.
// Owns where things are on the screen and their drawing; what the hands do is in hands.js, colours and words in spans.js.

import { inkOn, pixel } from "./colours.js";
import { make } from "./dom.js";
import { ticksOf } from "./format.js";
import { Pixels, firstAfter } from "./paint.js";

const AXIS = 26;
const PATH = 22;
export const TOP = AXIS + PATH + 4;
const HEAD = 22;
const LANE = 20;
const INSET = 2; // between lanes
const LONGEST_LINKS = 1500; // lines of the path between lanes; more would hide what they join
const LABEL_WIDTH = 44; // pixels that a bar needs before its name is written into it

export class Lanes {
  constructor(run, spans, app) {
    this.run = run;
    this.spans = spans;
    this.app = app;
    this.open = new Set(run.classes.length <= 3 ? run.classes.keys() : [this.busiest()]);
    this.selected = -1;
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.space = make("div", { className: "lanes-space" }, this.canvas);
    this.scroll = make("div", {
      className: "lanes-scroll", tabIndex: 0, role: "application", "aria-roledescription": "timeline",
      "aria-label": `Timeline of ${run.name}`, "aria-describedby": "keys",
    }, this.space);
    this.layOut();
    this.recolour();
    this.scroll.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.scroll);
  }

  // The rank class that has most of the critical path.
  busiest() {
    const { path_span: span, path_start: start, path_end: end } = this.run.columns;
    const time = new Float64Array(this.run.classes.length);
    span.forEach((one, i) => {
      if (one >= 0) time[this.run.lanes[this.spans.laneOf[one]].rankClass] += end[i] - start[i];
    });
    return time.indexOf(Math.max(...time));
  }

  get gutter() {
    return this.scroll.clientWidth < 640 ? 96 : 190;
  }

  get plotWidth() {
    return Math.max(10, this.scroll.clientWidth - this.gutter);
  }

  layOut() {
    this.rows = [];
    let y = 0;
    this.run.classes.forEach((rankClass, number) => {
      const lanes = this.run.lanes.filter((lane) => lane.rankClass === number);
      const open = this.open.has(number);
      if (this.run.classes.length > 1 || !open) {
        this.rows.push({ head: true, number, lane: open ? null : lanes[0], y, height: HEAD });
        y += HEAD;
      }
      if (open) {
        for (const lane of lanes) {
          this.rows.push({ head: false, number, lane, y, height: LANE });
          y += LANE;
        }
        y += 6;
      }
    });
    this.content = y + TOP + 4;
    this.space.style.height = `${this.content}px`;
    this.rowOf = new Map(this.rows.filter((row) => row.lane).map((row) => [row.lane, row]));
  }

  toggle(number) {
    if (this.open.has(number)) this.open.delete(number);
    else this.open.add(number);
    this.layOut();
    this.draw();
  }

  // Open every rank class, or where all are open, close them.
  toggleAll() {
    const all = this.open.size === this.run.classes.length;
    this.open = new Set(all ? [] : this.run.classes.keys());
    this.layOut();
    this.draw();
  }

  recolour() {
    this.paint = this.spans.paintFor(this.app.mode, this.app.theme, this.app.onlyPath);
    this.path = this.spans.pathLane(this.app.theme);
    this.inks = this.paint.colours.map(inkOn);
    this.draw();
  }

  secondsAt(x) {
    const { from, length } = this.app.window;
    return from + ((x - this.gutter) / this.plotWidth) * length;
  }

  xAt(seconds) {
    const { from, length } = this.app.window;
    return this.gutter + ((seconds - from) / length) * this.plotWidth;
  }

  rowAt(y) {
    const at = y - TOP + this.scroll.scrollTop;
    return y < TOP ? null : this.rows.find((row) => at >= row.y && at < row.y + row.height) || null;
  }

  // The span under a point of the canvas, or the nearest within three pixels; -1: none.
  spanAt(x, y) {
    if (x < this.gutter) return -1;
    const tick = this.secondsAt(x) / this.run.tick;
    const near = ((3 / this.plotWidth) * this.app.window.length) / this.run.tick;
    if (y >= AXIS && y < TOP) return this.pathSpanAt(tick);
    const lane = this.rowAt(y)?.lane;
    if (!lane) return -1;
    const { start, end } = this.spans;
    const at = firstAfter(end, lane.first, lane.last, tick);
    if (at < lane.last && start[at] <= tick) return at;
    const after = at < lane.last ? start[at] - tick : Infinity;
    const before = at > lane.first ? tick - end[at - 1] : Infinity;
    if (Math.min(after, before) > near) return -1;
    return after < before ? at : at - 1;
  }

  pathSpanAt(tick) {
    const { path_span: span, path_end: end } = this.run.columns;
    const at = firstAfter(end, 0, end.length, tick);
    return at < end.length ? span[at] : -1;
  }

  draw() {
    const began = performance.now();
    const width = this.scroll.clientWidth;
    const height = this.scroll.clientHeight;
    if (!width || !height) return;
    this.ratio = Math.min(3, window.devicePixelRatio || 1);
    const [deviceWidth, deviceHeight] = [Math.round(width * this.ratio), Math.round(height * this.ratio)];
    if (this.canvas.width !== deviceWidth || this.canvas.height !== deviceHeight) {
      this.canvas.width = deviceWidth;
      this.canvas.height = deviceHeight;
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const { theme } = this.app;
    const [ink, soft, line, sans] = ["--ink", "--soft", "--line", "--sans"].map((name) => theme.css(name));
    this.style = { ink, soft, line, sans, ground: theme.ground };
    this.context = this.canvas.getContext("2d");
    this.shown = this.rows.filter((row) => this.yOf(row) + row.height > TOP && this.yOf(row) < height);
    this.ticks = ticksOf(this.app.window.from, this.app.window.to, this.plotWidth / 90);
    this.drawPixels(height);
    this.drawWords(width, height);
    if (this.app.onlyPath) this.drawLinks();
    this.drawSelected();
    this.drawTop(width);
    this.app.timings.push(performance.now() - began);
  }

  yOf(row) {
    return row.y + TOP - this.scroll.scrollTop;
  }

  drawPixels(height) {
    const { ratio, run, app, style, context } = this;
    const device = (value) => Math.round(value * ratio);
    const ground = pixel(style.ground);
    const pixels = Pixels.clear(this.pixels, device(this.plotWidth), device(height), ground);
    this.pixels = pixels;
    const [from, to] = [app.window.from / run.tick, app.window.to / run.tick];
    const line = pixel(style.line);
    for (const mark of this.ticks.marks) {
      const x = device(this.xAt(mark.at) - this.gutter);
      pixels.rect(x, device(AXIS), x + 1, pixels.height, line);
    }
    const box = { height: device(LANE - INSET), palette: this.paint.palette, gap: device(1), ground };
    for (const row of this.shown) {
      if (!row.lane) continue;
      box.top = device(this.yOf(row) + (row.height - LANE + INSET) / 2);
      pixels.lane(this.paint, row.lane.first, row.lane.last, [from, to], box);
    }
    pixels.rect(0, 0, pixels.width, device(TOP), ground);
    const { path } = this;
    const above = { top: device(AXIS), height: device(PATH - 2), palette: path.palette, gap: device(1), ground };
    pixels.lane(path, 0, path.start.length, [from, to], above);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.putImageData(pixels.image, device(this.gutter), 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  drawWords(width, height) {
    const { context, style } = this;
    context.fillStyle = style.ground;
    context.fillRect(0, 0, this.gutter, height);
    context.textBaseline = "middle";
    for (const row of this.shown) {
      const y = this.yOf(row) + row.height / 2;
      if (row.head) this.drawHead(row, y);
      else {
        context.font = this.font(12);
        context.fillStyle = style.soft;
        this.fitted(this.run.streams[row.lane.stream], this.run.classes.length > 1 ? 20 : 4, y);
      }
      if (row.lane) this.drawNames(row);
    }
    context.strokeStyle = style.line;
    context.beginPath();
    context.moveTo(this.gutter - 0.5, AXIS);
    context.lineTo(this.gutter - 0.5, height);
    context.stroke();
  }

  drawHead(row, y) {
    const { context, style } = this;
    const { name, members, device } = this.run.classes[row.number];
    context.fillStyle = style.ink;
    context.font = this.font(10);
    context.fillText(this.open.has(row.number) ? "▼" : "▶", 4, y);
    context.font = this.font(12, 600);
    this.fitted(`${name}${members > 1 ? ` ×${members}` : ""}, ${device}`, 18, y);
  }

  font(size, weight = 400) {
    return `${weight} ${size}px ${this.style.sans}`;
  }

  // Write into the gutter; what is too long ends in dots.
  fitted(text, x, y) {
    const room = this.gutter - x - 8;
    let said = text;
    while (said.length > 1 && this.context.measureText(said).width > room) {
      said = `${said.slice(0, said.endsWith("…") ? -2 : -1)}…`;
    }
    this.context.fillText(said, x, y);
  }

  // Names of ops in bars that are wide enough; letters are taken to be as wide as an average one.
  drawNames(row) {
    const { context, run, app, spans, paint } = this;
    const [from, to] = [app.window.from / run.tick, app.window.to / run.tick];
    const scale = this.plotWidth / (to - from);
    const { start, end } = spans;
    const least = LABEL_WIDTH / scale;
    if (run.makespan / run.tick < least) return;
    context.font = this.font(11);
    const y = this.yOf(row) + row.height / 2 + 0.5;
    let seen = 0;
    for (let i = firstAfter(end, row.lane.first, row.lane.last, from); i < row.lane.last && start[i] < to; i += 1) {
      if (end[i] - start[i] < least) {
        seen += 1;
        if (seen > 20000) return; // nearly all are too thin for words
        continue;
      }
      const left = Math.max(this.gutter, this.gutter + (start[i] - from) * scale);
      const right = Math.min(this.gutter + this.plotWidth, this.gutter + (end[i] - from) * scale);
      if (right - left < LABEL_WIDTH) continue;
      const word = spans.word("name", run.columns.op[i]);
      const room = Math.floor((right - left - 8) / 6);
      context.fillStyle = this.inks[paint.shade[i]];
      context.fillText(word.length > room ? `${word.slice(0, room - 1)}…` : word, left + 4, y);
    }
  }

  // Lines from lane to lane where the critical path changes it.
  drawLinks() {
    const { context, run, app, spans, style } = this;
    const { path_span: span, path_start: start, path_end: end } = run.columns;
    context.strokeStyle = style.ink;
    context.globalAlpha = 0.55;
    context.beginPath();
    const seen = new Set();
    const first = Math.max(1, firstAfter(end, 0, end.length, app.window.from / run.tick));
    for (let i = first; i < span.length && start[i] * run.tick <= app.window.to; i += 1) {
      const before = span[i - 1];
      if (span[i] < 0 || before < 0 || spans.laneOf[before] === spans.laneOf[span[i]]) continue;
      const ends = [before, span[i]].map((one) => this.rowOf.get(run.lanes[spans.laneOf[one]]));
      if (!ends[0] || !ends[1]) continue;
      const x = Math.round(this.xAt(start[i] * run.tick)) + 0.5;
      const ys = ends.map((row) => Math.max(TOP, this.yOf(row) + row.height / 2));
      const key = `${x} ${ys}`;
      if (seen.has(key) || seen.size > LONGEST_LINKS) continue;
      seen.add(key);
      context.moveTo(x, ys[0]);
      context.lineTo(x, ys[1]);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  // A frame around the selected span, and a line to the span that it waited for.
  drawSelected() {
    if (this.selected < 0) return;
    const { context, spans, run, style } = this;
    const box = this.boxOf(this.selected);
    if (!box) return;
    context.save();
    context.beginPath();
    context.rect(this.gutter, TOP, this.plotWidth, 1e5);
    context.clip();
    context.strokeStyle = style.ink;
    context.lineWidth = 2;
    context.strokeRect(box.left - 1, box.top, Math.max(3, box.right - box.left + 2), box.height);
    for (const [, cause] of spans.reasons(this.selected)) {
      const there = this.boxOf(cause);
      if (!there) continue;
      context.setLineDash([3, 3]);
      context.lineWidth = 1.5;
      context.strokeRect(there.left - 1, there.top, Math.max(3, there.right - there.left + 2), there.height);
      context.beginPath();
      context.moveTo(there.right, there.top + there.height / 2);
      context.lineTo(box.left, box.top + box.height / 2);
      context.stroke();
    }
    context.restore();
  }

  boxOf(span) {
    const row = this.rowOf.get(this.run.lanes[this.spans.laneOf[span]]);
    if (!row) return null;
    const [left, right] = [this.xAt(this.spans.from(span)), this.xAt(this.spans.to(span))];
    return { left, right, top: this.yOf(row) + INSET / 2, height: row.height - INSET };
  }

  drawTop(width) {
    const { context, style } = this;
    context.fillStyle = style.ground;
    context.fillRect(0, 0, width, AXIS);
    context.fillRect(0, AXIS, this.gutter, PATH + 4);
    context.fillStyle = style.soft;
    context.font = this.font(11);
    context.textBaseline = "middle";
    context.textAlign = "center";
    for (const { at, words } of this.ticks.marks) {
      const x = this.xAt(at);
      const half = context.measureText(words).width / 2;
      if (x - half >= this.gutter && x + half <= width) context.fillText(words, x, AXIS / 2);
    }
    context.textAlign = "left";
    context.fillText(`time (${this.ticks.unit})`, 4, AXIS / 2);
    context.fillStyle = style.ink;
    context.font = this.font(12, 600);
    this.fitted("critical path", 4, AXIS + PATH / 2);
    context.strokeStyle = style.line;
    context.beginPath();
    context.moveTo(0, TOP - 2.5);
    context.lineTo(width, TOP - 2.5);
    context.stroke();
  }

  // Bring a span onto the screen and mark it.
  select(span, { centre = false } = {}) {
    this.selected = span;
    if (span >= 0) {
      const lane = this.run.lanes[this.spans.laneOf[span]];
      if (!this.rowOf.has(lane)) this.toggle(lane.rankClass);
      this.scrollTo(this.rowOf.get(lane));
      this.showTime(span, centre);
    }
    this.draw();
  }

  scrollTo(row) {
    const room = this.scroll.clientHeight - TOP;
    if (row.y < this.scroll.scrollTop) this.scroll.scrollTop = row.y;
    else if (row.y + row.height > this.scroll.scrollTop + room) this.scroll.scrollTop = row.y + row.height - room;
  }

  showTime(span, centre) {
    const { window: shown } = this.app;
    const [from, to] = [this.spans.from(span), this.spans.to(span)];
    if (centre) shown.show(from - 2 * (to - from), to + 2 * (to - from));
    else if (to < shown.from || from > shown.to) shown.show(from - shown.length / 2, from + shown.length / 2);
  }
}
