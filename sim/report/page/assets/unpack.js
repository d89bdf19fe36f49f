// From the blob of a run to typed arrays. The form is that of columns.py: bytes of a column sorted by significance, all
// columns deflated together, base64.

const KINDS = {
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i1: Int8Array, i2: Int16Array, i4: Int32Array,
  f4: Float32Array, f8: Float64Array,
};

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function unshuffled(bytes, offset, kind, count) {
  const values = new KINDS[kind](count);
  const size = values.BYTES_PER_ELEMENT;
  const to = new Uint8Array(values.buffer);
  for (let byte = 0; byte < size; byte += 1) {
    const from = offset + byte * count;
    for (let i = 0, at = byte; i < count; i += 1, at += size) to[at] = bytes[from + i];
  }
  return values;
}

// Sums of gaps and lengths, lane by lane, in the arithmetic of 32 bits in which they were taken.
function placeSpans(run, columns) {
  const count = columns.op.length;
  const start = new Uint32Array(count);
  const end = new Uint32Array(count);
  let before = 0;
  for (let i = 0; i < count; i += 1) {
    start[i] = before + columns.gap[i];
    end[i] = start[i] + columns.length[i];
    before = end[i];
  }
  columns.start = start;
  columns.end = end;
  let first = 0;
  run.lanes = run.lanes.map(([rankClass, stream, spans]) => {
    const lane = { rankClass, stream, first, last: first + spans };
    first += spans;
    return lane;
  });
}

export async function unpack(run) {
  const bytes = await inflated(bytesOf(run.blob));
  run.blob = null;
  const columns = {};
  let offset = 0;
  for (const [name, kind, count] of run.columns) {
    columns[name] = unshuffled(bytes, offset, kind, count);
    offset += count * columns[name].BYTES_PER_ELEMENT;
  }
  run.columns = columns;
  run.tick = run.makespan / run.ticks; // seconds
  placeSpans(run, columns);
  return run;
}
