// The part of the step that is on the screen: one for all charts with an axis of time, so that they move together.

const SMALLEST = 1e-9; // seconds on the screen

export class TimeWindow {
  constructor(end) {
    this.end = end;
    this.from = 0;
    this.to = end;
    this.listeners = [];
    this.asked = false;
  }

  get length() {
    return this.to - this.from;
  }

  // Redraws are asked for, not done: several changes between two pictures cost one.
  changed() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      for (const listener of this.listeners) listener();
    });
  }

  show(from, to) {
    const length = Math.min(Math.max(to - from, SMALLEST), this.end);
    const middle = (from + to) / 2;
    this.from = Math.min(Math.max(middle - length / 2, 0), this.end - length);
    this.to = this.from + length;
    this.changed();
  }

  // `factor` above 1 shows less; the instant `at` stays where it is.
  zoom(factor, at = (this.from + this.to) / 2) {
    const length = Math.min(Math.max(this.length / factor, SMALLEST), this.end);
    const from = at - ((at - this.from) * length) / this.length;
    this.show(from, from + length);
  }

  // Move by a part of what is shown.
  pan(part) {
    this.show(this.from + part * this.length, this.to + part * this.length);
  }

  fit() {
    this.show(0, this.end);
  }
}
