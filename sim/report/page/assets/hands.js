// What pointer and keyboard do to a timeline. Wheel alone scrolls the page: only with Ctrl (or a pinch) does it zoom.

import { make } from "./dom.js";
import { instant } from "./format.js";

const CLICK = 4; // pixels within which a press is a click and not a drag

export class Hands {
  constructor(lanes, tooltip) {
    this.lanes = lanes;
    this.app = lanes.app;
    this.tooltip = tooltip;
    this.cursor = make("div", { className: "cursor", hidden: true });
    this.range = make("div", { className: "range", hidden: true });
    lanes.space.append(this.cursor, this.range);
    this.press = null;
    this.focused = 0; // the lane that the keyboard is in
    const { canvas, scroll } = lanes;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", () => this.release());
    canvas.addEventListener("pointerleave", () => this.hide());
    canvas.addEventListener("dblclick", (event) => this.double(event));
    scroll.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    scroll.addEventListener("keydown", (event) => this.key(event));
  }

  at(event) {
    const box = this.lanes.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (event.button !== 0) return;
    const [x, y] = this.at(event);
    this.press = { x, y, from: this.app.window.from, moved: false, range: event.shiftKey };
    this.lanes.canvas.setPointerCapture(event.pointerId);
    this.lanes.scroll.focus({ preventScroll: true });
  }

  move(event) {
    const [x, y] = this.at(event);
    if (!this.press) {
      this.hover(x, y, event);
      return;
    }
    const { press, lanes } = this;
    if (Math.abs(x - press.x) < CLICK && !press.moved) return;
    press.moved = true;
    this.hide();
    if (press.range) this.mark(Math.min(press.x, x), Math.max(press.x, x));
    else {
      const { window: shown } = this.app;
      const from = press.from - ((x - press.x) / lanes.plotWidth) * shown.length;
      shown.show(from, from + shown.length);
    }
  }

  mark(left, right) {
    const from = Math.max(this.lanes.gutter, left);
    Object.assign(this.range.style, { left: `${from}px`, width: `${Math.max(0, right - from)}px` });
    this.range.style.top = `${this.lanes.scroll.scrollTop}px`;
    this.range.style.height = `${this.lanes.scroll.clientHeight}px`;
    this.range.hidden = false;
  }

  up(event) {
    const { press, lanes } = this;
    if (!press) return;
    const [x, y] = this.at(event);
    this.release();
    if (press.moved && press.range) {
      const [from, to] = [press.x, x].map((one) => lanes.secondsAt(Math.max(lanes.gutter, one)));
      if (from !== to) this.app.window.show(Math.min(from, to), Math.max(from, to));
    } else if (!press.moved) this.click(x, y);
  }

  release() {
    this.press = null;
    this.range.hidden = true;
  }

  click(x, y) {
    const row = this.lanes.rowAt(y);
    if (row?.head && (x < this.lanes.gutter || !row.lane)) this.lanes.toggle(row.number);
    else this.app.choose(this.lanes, this.lanes.spanAt(x, y));
  }

  double(event) {
    const span = this.lanes.spanAt(...this.at(event));
    if (span >= 0) this.lanes.showTime(span, true);
  }

  hover(x, y, event) {
    const { lanes, cursor } = this;
    if (x < lanes.gutter) {
      this.hide();
      return;
    }
    cursor.hidden = false;
    Object.assign(cursor.style, {
      left: `${x}px`, top: `${lanes.scroll.scrollTop}px`, height: `${lanes.scroll.clientHeight}px`,
    });
    const span = lanes.spanAt(x, y);
    lanes.canvas.style.cursor = span >= 0 ? "pointer" : "crosshair";
    if (span < 0) this.tooltip.hide();
    else this.tooltip.show(event, this.words(span));
  }

  words(span) {
    const { spans } = this.lanes;
    const rows = spans.facts(span).filter(([name]) => name !== "where");
    return { title: spans.title(span), where: spans.place(span), rows: rows.slice(0, 8) };
  }

  hide() {
    this.cursor.hidden = true;
    this.tooltip.hide();
  }

  wheel(event) {
    const { window: shown } = this.app;
    const [x] = this.at(event);
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.hide();
      shown.zoom(2 ** (-event.deltaY / (event.deltaMode ? 8 : 150)), this.lanes.secondsAt(Math.max(x, this.lanes.gutter)));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      shown.pan((event.deltaX || event.deltaY) / this.lanes.plotWidth);
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { window: shown } = this.app;
    const acts = {
      ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
      ArrowDown: () => this.lane(1), ArrowUp: () => this.lane(-1),
      "+": () => shown.zoom(1.5), "=": () => shown.zoom(1.5), w: () => shown.zoom(1.5),
      "-": () => shown.zoom(1 / 1.5), s: () => shown.zoom(1 / 1.5),
      a: () => shown.pan(-0.2), d: () => shown.pan(0.2), PageUp: () => shown.pan(-0.9), PageDown: () => shown.pan(0.9),
      f: () => shown.fit(), Home: () => shown.fit(), Enter: () => this.closer(), c: () => this.cause(),
      p: () => this.app.togglePath(), e: () => this.openGroup(), Escape: () => this.app.choose(this.lanes, -1),
      "/": () => this.app.focusSearch(),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  // The next span of the lane, or the first one that is on the screen.
  step(by) {
    const { lanes } = this;
    const span = lanes.selected;
    if (span < 0) {
      this.enter(lanes.rows.findIndex((row) => row.lane));
      return;
    }
    const lane = lanes.run.lanes[lanes.spans.laneOf[span]];
    const next = span + by;
    if (next >= lane.first && next < lane.last) this.app.choose(lanes, next);
  }

  lane(by) {
    const { lanes } = this;
    const here = lanes.selected < 0 ? -1 : lanes.rows.indexOf(lanes.rowOf.get(lanes.run.lanes[lanes.spans.laneOf[lanes.selected]]));
    let next = here + by;
    while (next >= 0 && next < lanes.rows.length && !lanes.rows[next].lane) next += by;
    if (next >= 0 && next < lanes.rows.length) this.enter(next);
  }

  // Choose the span of a row that runs at the chosen one's start, or the one after.
  enter(number) {
    const { lanes } = this;
    const { lane } = lanes.rows[number];
    const from = lanes.selected < 0 ? this.app.window.from / lanes.run.tick : lanes.spans.start[lanes.selected];
    let span = lane.first;
    while (span < lane.last - 1 && lanes.spans.end[span] <= from) span += 1;
    this.app.choose(lanes, span);
  }

  closer() {
    if (this.lanes.selected >= 0) this.lanes.showTime(this.lanes.selected, true);
  }

  cause() {
    const { lanes } = this;
    const [first] = lanes.selected < 0 ? [] : lanes.spans.reasons(lanes.selected);
    if (first) this.app.choose(lanes, first[1]);
  }

  openGroup() {
    const { lanes } = this;
    const lane = lanes.selected < 0 ? lanes.run.lanes[0] : lanes.run.lanes[lanes.spans.laneOf[lanes.selected]];
    lanes.toggle(lane.rankClass);
  }
}

// A box beside the pointer. It is for eyes only: the panel of the chosen span says the same to everyone.
export class Tooltip {
  constructor() {
    this.box = make("div", { className: "tooltip", hidden: true, "aria-hidden": "true" });
    document.body.append(this.box);
  }

  show(event, { title, where, rows }) {
    const list = rows.map(([name, value]) => make("tr", {}, make("th", {}, name), make("td", {}, value)));
    this.box.replaceChildren(make("b", {}, title), make("p", {}, where), make("table", {}, ...list));
    this.box.hidden = false;
    const { width, height } = this.box.getBoundingClientRect();
    const left = event.clientX + 16 + width > innerWidth ? event.clientX - width - 12 : event.clientX + 16;
    const top = Math.min(event.clientY + 16, innerHeight - height - 8);
    Object.assign(this.box.style, { left: `${Math.max(4, left)}px`, top: `${Math.max(4, top)}px` });
  }

  hide() {
    this.box.hidden = true;
  }
}

export function shownTime(shown) {
  return `${instant(shown.from, shown.length)} to ${instant(shown.to, shown.length)}`;
}
