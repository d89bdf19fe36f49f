// Spans into pixels. A span at least a pixel wide is a bar. Narrower ones share their pixel column: each colour gets as
// much of the lane's height as it has of the column's time, so that areas are right at every zoom and nothing flickers.
// Written into 32-bit pixels directly: no call a span, so a million spans are a few milliseconds.

export function firstAfter(values, low, high, value) {
  let from = low;
  let to = high;
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (values[middle] <= value) from = middle + 1;
    else to = middle;
  }
  return from;
}

export class Pixels {
  constructor(width, height) {
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    this.image = new ImageData(this.width, this.height);
    this.data = new Uint32Array(this.image.data.buffer);
    this.share = new Float64Array(0);
    this.touched = [];
  }

  // The same pixels, cleared, where the size has not changed: a picture of a megabyte need not be asked for anew.
  static clear(old, width, height, ground) {
    const same = old && old.width === Math.max(1, width) && old.height === Math.max(1, height);
    const pixels = same ? old : new Pixels(width, height);
    pixels.data.fill(ground);
    return pixels;
  }

  rect(left, top, right, bottom, value) {
    const from = Math.max(0, left);
    const to = Math.min(this.width, right);
    if (to <= from) return;
    for (let y = Math.max(0, top); y < Math.min(this.height, bottom); y += 1) {
      this.data.fill(value, y * this.width + from, y * this.width + to);
    }
  }

  // Spans first..last of (start, end, shade), which are in order and free of overlap, from tick `from` to tick `to`.
  lane(spans, first, last, [from, to], { top, height, palette, gap, ground }) {
    const { start, end, shade } = spans;
    const scale = this.width / (to - from);
    if (this.share.length < palette.length) this.share = new Float64Array(palette.length);
    const box = { top, height, palette, ground };
    this.at = -1; // the pixel column that narrow spans are being added to
    let edge = -1; // the column in which the last bar ended, its shade, and how much of the column it has
    let edgeShade = 0;
    let edgeShare = 0;
    for (let i = firstAfter(end, first, last, from); i < last && start[i] < to; i += 1) {
      const x0 = (start[i] - from) * scale;
      const x1 = (end[i] - from) * scale;
      if (x1 - x0 >= 1) {
        const left = this.at === Math.floor(x0) ? this.joined(x0, shade[i], box) : Math.round(x0);
        const right = Math.max(Math.round(x1), left + 1);
        this.flush(box);
        this.rect(left, top, right, top + height, palette[shade[i]]);
        if (right - left >= 4 * gap) this.rect(right - gap, top, right, top + height, ground);
        edge = Math.floor(x1);
        edgeShade = shade[i];
        edgeShare = x1 - edge;
      } else if (x1 > x0) {
        const at = ((x0 + x1) / 2) | 0;
        if (at !== this.at) {
          this.flush(box);
          this.at = at;
          if (at === edge) this.add(edgeShade, edgeShare);
        }
        this.add(shade[i], x1 - x0);
      }
    }
    this.flush(box);
  }

  add(shade, share) {
    if (this.share[shade] === 0) this.touched.push(shade);
    this.share[shade] += share;
  }

  // A bar begins in the column of narrow spans: it has its share of that column and begins in the next.
  joined(x0, shade, box) {
    const next = Math.floor(x0) + 1;
    this.add(shade, next - x0);
    this.flush(box);
    return next;
  }

  // Paint the column that was added up, and begin anew.
  flush({ top, height, palette, ground }) {
    if (this.at < 0) return;
    const x = this.at;
    this.at = -1;
    const touched = this.touched.length > 1 ? this.touched.sort((a, b) => a - b) : this.touched;
    let filled = 0;
    let y = top + height;
    for (const shade of touched) {
      filled += this.share[shade];
      this.share[shade] = 0;
      const upper = top + height - Math.max(1, Math.round(Math.min(1, filled) * height));
      if (upper < y) this.rect(x, upper, x + 1, y, palette[shade]);
      y = Math.min(y, upper);
    }
    this.rect(x, top, x + 1, y, ground);
    this.touched.length = 0;
  }
}
