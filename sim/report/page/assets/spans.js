// What is known of the spans of one run beyond their columns: colours, matches, the critical path, words.

import { faded, hueOf, huesFor, microbatchColour, pixel } from "./colours.js";
import { bytes, instant, scaled, seconds } from "./format.js";

const DIMMED = 0.16;
const REASON_CATEGORY = { "host launch": "host_launch" };

export class Spans {
  constructor(run, labels) {
    this.run = run;
    this.labels = labels;
    this.count = run.columns.op.length;
    this.start = run.columns.start;
    this.end = run.columns.end;
    this.laneOf = new Uint32Array(this.count);
    run.lanes.forEach((lane, number) => this.laneOf.fill(number, lane.first, lane.last));
    this.onPath = new Uint8Array(this.count);
    for (const span of run.columns.path_span) if (span >= 0) this.onPath[span] = 1;
    this.slowed = this.slowedBy();
    this.microbatches = run.columns.microbatch.reduce((most, one) => Math.max(most, one + 1), 1);
    this.match = null;
    this.found = 0;
  }

  // First row of each slowed span in the table of (span, resource, seconds); the table is in order of spans or not.
  slowedBy() {
    const rows = new Map();
    this.run.columns.slow_span.forEach((span, row) => {
      if (rows.has(span)) rows.get(span).push(row);
      else rows.set(span, [row]);
    });
    return rows;
  }

  word(kind, op) {
    return this.run.words[kind][this.run.columns[`op_${kind}`][op]];
  }

  phase(op) {
    return this.word("phase", op);
  }

  // Colour of each span by a rule, as a number of a table: keys (spans) and colours (table).
  scheme(mode, theme) {
    const columns = this.run.columns;
    if (mode === "microbatch") return this.byMicrobatch(theme);
    const ops = columns.op_name.length;
    const ofOp = new Uint16Array(ops);
    let names;
    if (mode === "bound") {
      names = [...new Set(this.run.resources.map((one) => one.kind)), "latency"];
      for (let op = 0; op < ops; op += 1) {
        const held = columns.op_bound_by[op];
        ofOp[op] = names.indexOf(held >= 0 ? this.run.resources[held].kind : "latency");
      }
    } else {
      names = this.run.words.category;
      ofOp.set(columns.op_category);
    }
    const keys = new Uint16Array(this.count);
    for (let i = 0; i < this.count; i += 1) keys[i] = ofOp[columns.op[i]];
    const paint = (name) => (mode === "bound" ? theme.kind(name) : theme.category(name));
    return { keys, colours: names.map(paint), names };
  }

  byMicrobatch(theme) {
    const { op, microbatch, op_phase: phaseOf } = this.run.columns;
    const { phases } = this.run;
    const hues = huesFor(this.microbatches);
    const ofOp = this.run.words.phase.map((phase) => phases.indexOf(phase));
    const keys = new Uint16Array(this.count);
    for (let i = 0; i < this.count; i += 1) {
      const hue = microbatch[i] < 0 ? -1 : hueOf(microbatch[i], this.microbatches);
      keys[i] = hue < 0 ? 0 : 1 + hue * phases.length + ofOp[phaseOf[op[i]]];
    }
    const colours = [microbatchColour(-1, 1, "O", theme.dark)];
    for (let hue = 0; hue < hues; hue += 1) {
      for (const phase of phases) colours.push(microbatchColour(hue, hues, phase, theme.dark));
    }
    return { keys, colours, names: null };
  }

  // Numbers of colours with those that stand back: what is not on the path, what is not found.
  paintFor(mode, theme, onlyPath) {
    const scheme = this.scheme(mode, theme);
    const colours = scheme.colours.length;
    const shade = scheme.keys;
    const { match, onPath } = this;
    if (onlyPath || match) {
      for (let i = 0; i < this.count; i += 1) {
        if ((onlyPath && !onPath[i]) || (match && !match[i])) shade[i] += colours;
      }
    }
    const dim = scheme.colours.map((colour) => faded(colour, theme.ground, DIMMED));
    const palette = Uint32Array.from([...scheme.colours, ...dim].map(pixel));
    return { start: this.start, end: this.end, shade, palette, colours: [...scheme.colours, ...dim] };
  }

  // The critical path as a lane of its own, each piece in the colour of its category.
  pathLane(theme) {
    const { path_start: start, path_end: end, path_span: span, path_reason: reason, op, op_category: category } =
      this.run.columns;
    const names = [...this.run.words.category, "host_launch", "bubble"];
    const shade = new Uint16Array(start.length);
    for (let i = 0; i < start.length; i += 1) {
      const without = REASON_CATEGORY[this.run.reasons[reason[i]]] || "bubble";
      shade[i] = span[i] >= 0 ? category[op[span[i]]] : names.lastIndexOf(without);
    }
    return { start, end, shade, palette: Uint32Array.from(names.map((name) => pixel(theme.category(name)))) };
  }

  // Mark what a text asks for: every word is found in the op's words; "mb 3" means microbatch 3, "layer 4" that layer.
  search(text) {
    const asked = text.trim().toLowerCase();
    this.match = null;
    this.found = 0;
    if (!asked) return;
    let microbatch = null;
    const rest = asked.replace(/\b(?:mb|microbatch)[ :=]*(\d+)\b/, (_, number) => {
      microbatch = Number(number);
      return "";
    }).replace(/\blayer[ :=]+(\d+)\b/, "layer=$1");
    const words = rest.split(/\s+/).filter(Boolean);
    const columns = this.run.columns;
    const fits = Uint8Array.from(columns.op_name, (_, op) => {
      const said = this.searchable(op);
      return words.every((word) => (word.startsWith("layer=") ? said.includes(` ${word} `) : said.includes(word))) ? 1 : 0;
    });
    this.match = new Uint8Array(this.count);
    for (let i = 0; i < this.count; i += 1) {
      if (fits[columns.op[i]] && (microbatch === null || columns.microbatch[i] === microbatch)) {
        this.match[i] = 1;
        this.found += 1;
      }
    }
  }

  searchable(op) {
    const category = this.word("category", op);
    const label = this.labels[category] || category;
    const layer = this.run.columns.op_layer[op];
    return ` ${this.word("name", op)} ${this.word("kind", op)} ${category} ${label} layer=${layer} `.toLowerCase();
  }

  // The found span that begins next after (or last before) a tick and a span at that tick.
  neighbour(span, backwards) {
    const at = span >= 0 ? this.start[span] : -1;
    let best = -1;
    for (let i = 0; i < this.count; i += 1) {
      if (!this.match[i] || i === span) continue;
      const there = this.start[i];
      const later = there > at || (there === at && i > span);
      if (later === backwards) continue;
      if (best < 0 || (backwards ? there >= this.start[best] : there < this.start[best])) best = i;
    }
    return best;
  }

  title(span) {
    const op = this.run.columns.op[span];
    const microbatch = this.run.columns.microbatch[span];
    return this.word("name", op) + (microbatch >= 0 ? `, microbatch ${microbatch}` : "");
  }

  place(span) {
    const lane = this.run.lanes[this.laneOf[span]];
    const { name, device } = this.run.classes[lane.rankClass];
    return `${this.run.streams[lane.stream]}, ${name} on ${device}`;
  }

  from(span) {
    return this.start[span] * this.run.tick;
  }

  to(span) {
    return this.end[span] * this.run.tick;
  }

  // (name, value) pairs that say everything that is recorded of a span.
  facts(span) {
    const { columns, tick, resources } = this.run;
    const op = columns.op[span];
    const layer = columns.op_layer[op];
    const held = columns.op_bound_by[op];
    const category = this.word("category", op);
    const rows = [
      ["category", this.labels[category] || category],
      ["where", this.place(span)],
      ["starts", instant(this.from(span), this.to(span) - this.from(span))],
      ["takes", seconds(this.to(span) - this.from(span))],
      ["alone it takes", seconds(columns.op_duration[op] + columns.op_latency[op])],
      ["set by", held >= 0 ? resources[held].name : "latency"],
    ];
    if (layer >= 0) rows.push(["layer", String(layer)]);
    if (columns.op_flops[op] > 0) rows.push(["work", scaled(columns.op_flops[op], "FLOP")]);
    if (columns.op_size[op] > 0) rows.push(["bytes", bytes(columns.op_size[op])]);
    if (columns.op_group_size[op] > 1) rows.push(["group", `${columns.op_group_size[op]} ranks`]);
    if (columns.op_kernels[op] > 1) rows.push(["kernels", String(columns.op_kernels[op])]);
    if (columns.wait[span] > 0) rows.push(["waited for peers", seconds(columns.wait[span] * tick)]);
    for (const row of this.slowed.get(span) || []) {
      const whom = resources[columns.slow_resource[row]].name;
      rows.push(["slowed", `${seconds(columns.slow_seconds[row])}, ${whom} was full`]);
    }
    rows.push(["critical path", this.onPath[span] ? "on it" : "not on it"]);
    return rows;
  }

  // Spans that explain when this one began: (words, span).
  reasons(span) {
    const { cause, cause_span: causeSpan, peer } = this.run.columns;
    const words = {
      dependency: "it needed the end of", stream: "its stream was busy with", launch: "its launch came late, after",
    };
    const found = [];
    if (peer[span]) found.push(["the last of its group to come was", span + peer[span]]);
    if (causeSpan[span]) found.push([words[this.run.causes[cause[span]]] || "after", span + causeSpan[span]]);
    return found;
  }
}
