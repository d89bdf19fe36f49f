// The pipeline as a grid: a row a rank class, a box an action, from its first to its last kernel; empty is waiting.

import { hueOf, huesFor, inkOn, microbatchColour, pixel } from "./colours.js";
import { make } from "./dom.js";
import { seconds, ticksOf } from "./format.js";
import { Pixels, firstAfter } from "./paint.js";

const RULER = 24;
const ACTIONS = {
  F: "forward", B: "backward", I: "input gradient", W: "weight gradient", R: "recompute", O: "optimizer",
};

export class Grid {
  constructor(run, microbatches, app, gutterOf) {
    Object.assign(this, { run, microbatches, app, gutterOf });
    const { block_start: start, block_length: length, block_class: row } = run.columns;
    const count = run.classes.length;
    this.tall = Math.max(9, Math.min(26, Math.round(560 / count)));
    this.blocks = { start, end: start.map((one, i) => one + length[i]), shade: new Uint16Array(start.length) };
    this.first = Array.from({ length: count + 1 }, (_, number) => firstAfter(row, 0, row.length, number - 1));
    this.canvas = make("canvas", { role: "img", "aria-label": `Pipeline of ${run.name}: ${count} rows, ${start.length} boxes` });
    this.root = make("div", { className: "grid" }, this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", () => app.tooltip.hide());
    this.recolour();
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  recolour() {
    const { columns, phases } = this.run;
    const hues = huesFor(this.microbatches);
    this.colours = [microbatchColour(-1, 1, "O", this.app.theme.dark)];
    for (let hue = 0; hue < hues; hue += 1) {
      for (const phase of phases) this.colours.push(microbatchColour(hue, hues, phase, this.app.theme.dark));
    }
    columns.block_microbatch.forEach((microbatch, i) => {
      const hue = hueOf(microbatch, this.microbatches);
      this.blocks.shade[i] = microbatch < 0 ? 0 : 1 + hue * phases.length + columns.block_phase[i];
    });
    this.palette = Uint32Array.from(this.colours, pixel);
    this.inks = this.colours.map(inkOn);
    this.draw();
  }

  draw() {
    const width = this.root.clientWidth;
    if (!width) return;
    const ratio = Math.min(3, devicePixelRatio || 1);
    const height = RULER + this.run.classes.length * this.tall;
    Object.assign(this.canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    const context = this.canvas.getContext("2d");
    context.fillStyle = this.app.theme.ground;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.gutter = this.gutterOf();
    this.scale = (width - this.gutter) / this.app.window.length;
    this.drawRows(context, ratio, Math.round((width - this.gutter) * ratio));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.textBaseline = "middle";
    this.drawRuler(context, width);
    this.drawNames(context);
    if (this.tall >= 14) this.drawNumbers(context, width);
  }

  drawRows(context, ratio, width) {
    const { run, app, tall, first } = this;
    const [from, to] = [app.window.from / run.tick, app.window.to / run.tick];
    const ground = pixel(app.theme.ground);
    const pixels = Pixels.clear(this.pixels, width, Math.round(run.classes.length * tall * ratio), ground);
    this.pixels = pixels;
    run.classes.forEach((_, row) => {
      const top = Math.round(row * tall * ratio);
      const height = Math.round((row + 1) * tall * ratio) - top - Math.ceil(ratio);
      const box = { top, height, palette: this.palette, gap: Math.round(ratio), ground };
      pixels.lane(this.blocks, first[row], first[row + 1], [from, to], box);
    });
    context.putImageData(pixels.image, Math.round(this.gutter * ratio), Math.round(RULER * ratio));
  }

  drawRuler(context, width) {
    const { theme, window: shown } = this.app;
    const { unit, marks } = ticksOf(shown.from, shown.to, (width - this.gutter) / 90);
    context.font = `11px ${theme.css("--sans")}`;
    context.fillStyle = theme.css("--soft");
    context.fillText(`time (${unit})`, 4, RULER / 2);
    context.textAlign = "center";
    for (const { at, words } of marks) {
      const x = this.gutter + (at - shown.from) * this.scale;
      const half = context.measureText(words).width / 2;
      if (x - half > 70 && x + half < width) context.fillText(words, x, RULER / 2);
    }
    context.textAlign = "left";
  }

  drawNames(context) {
    const every = Math.ceil(13 / this.tall);
    context.font = `12px ${this.app.theme.css("--sans")}`;
    this.run.classes.forEach(({ name, members }, row) => {
      if (row % every) return;
      const said = members > 1 ? `${name} ×${members}` : name;
      context.fillText(said, 4, RULER + (row + 0.5) * this.tall, this.gutter - 12);
    });
  }

  // Microbatches in boxes that have room for them.
  drawNumbers(context, width) {
    const { run, blocks, scale, app } = this;
    context.font = `11px ${app.theme.css("--sans")}`;
    context.textAlign = "center";
    blocks.start.forEach((start, i) => {
      const [microbatch, phase] = [run.columns.block_microbatch[i], run.phases[run.columns.block_phase[i]]];
      const said = microbatch < 0 || phase === "O" ? "" : String(microbatch);
      const left = Math.max(this.gutter, this.gutter + (start * run.tick - app.window.from) * scale);
      const right = Math.min(width, this.gutter + (blocks.end[i] * run.tick - app.window.from) * scale);
      if (right - left < 7 * said.length + 4) return;
      context.fillStyle = this.inks[blocks.shade[i]];
      context.fillText(said, (left + right) / 2, RULER + (run.columns.block_class[i] + 0.5) * this.tall);
    });
    context.textAlign = "left";
  }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - RULER) / this.tall);
    const { run, blocks, first, app } = this;
    const tick = (app.window.from + (event.clientX - box.left - this.gutter) / this.scale) / run.tick;
    const inside = row >= 0 && row < run.classes.length && event.clientX - box.left >= this.gutter;
    const at = inside ? firstAfter(blocks.end, first[row], first[row + 1], tick) : -1;
    if (!inside || at >= first[row + 1] || blocks.start[at] > tick) {
      app.tooltip.hide();
      return;
    }
    const microbatch = run.columns.block_microbatch[at];
    const action = ACTIONS[run.phases[run.columns.block_phase[at]]];
    app.tooltip.show(event, {
      title: microbatch >= 0 ? `${action} of microbatch ${microbatch}` : action,
      where: `${run.classes[row].name} on ${run.classes[row].device}`,
      rows: [["starts", seconds(blocks.start[at] * run.tick)], ["takes", seconds((blocks.end[at] - blocks.start[at]) * run.tick)]],
    });
  }
}
