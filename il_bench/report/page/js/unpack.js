// Recordings: text -> the rows of each episode. See `packed` in episodes.py for the other direction.

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Give a policy its `tracks`: by seed, {n, columns by name}, in px, radians and shares. */
async function unpack(policy) {
  policy.tracks = new Map();
  const packed = policy.recording;
  if (!packed) return;
  const buffer = await inflate(packed.data);
  const total = sum(packed.n);
  const names = packed.columns;
  let columns;
  if (names[0] === "reward") {
    columns = [new Float32Array(buffer)];
  } else {
    const bytes = new Uint8Array(buffer), high = names.length * total;
    columns = names.map((name, column) => {
      const values = new Float32Array(total), unit = DATA.units[name];
      let sofar = 0;
      for (let i = 0, at = column * total; i < total; i++, at++) {
        const folded = bytes[at] | (bytes[high + at] << 8);
        sofar = ((sofar + ((folded >>> 1) ^ -(folded & 1))) << 16) >> 16;
        values[i] = sofar * unit;
      }
      return values;
    });
  }
  let from = 0;
  packed.seeds.forEach((seed, at) => {
    const track = { n: packed.n[at] };
    names.forEach((name, column) => { track[name] = columns[column].subarray(from, from + packed.n[at]); });
    policy.tracks.set(seed, track);
    from += packed.n[at];
  });
  policy.recording = null;
}

const canPlay = typeof DecompressionStream === "function";
const unpacked = canPlay ? Promise.all(DATA.policies.map(unpack)) : Promise.resolve(DATA.policies.forEach((p) => { p.tracks = new Map(); }));
const hasPoses = (track) => track !== undefined && track.block_x !== undefined;
