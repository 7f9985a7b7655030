/* 2 × 512 colours from the cold end to the warm one, then those of what is no value. */
const HALF = 512, ZERO = 2 * HALF + 1, NAN = ZERO + 1, UNSEEN = NAN + 1;
const palette = (plane) => {
  const ends = ["--cold2", "--cold", "--mid", "--warm", "--warm2"].map((n) => rgb(css(n))), out = new Uint32Array(UNSEEN + 1);
  const put = (i, [r, g, b]) => { out[i] = (255 << 24) | (b << 16) | (g << 8) | r; };
  const ramp = (a, b, c, t) => (t < 0.5 ? mix(a, b, 2 * t) : mix(b, c, 2 * t - 1));
  const bend = plane.scale === "log" ? Math.sqrt : (t) => t;
  for (let i = 0; i <= HALF; i++) {
    put(HALF + i, ramp(ends[2], ends[3], ends[4], bend(i / HALF)));
    if (i) put(HALF - i, ramp(ends[2], ends[1], ends[0], bend(i / HALF)));
  }
  put(ZERO, rgb(css("--zero"))); put(NAN, rgb(css("--nan"))); put(UNSEEN, rgb(css("--card")));
  return out;
};
/* Which of those a cell gets: not finite before exactly zero before what lies furthest from the centre. */
const shade = (plane, low, high) => {
  if (high !== high) return UNSEEN;
  if (high === Infinity) return NAN;
  if (plane.scale === "fraction") return HALF + Math.round(HALF * clamp(high, 0, 1));
  if (low === 0) return ZERO;
  const up = Math.log10(high) - plane.centre, down = low === high ? up : Math.log10(low) - plane.centre;
  return HALF + Math.round(HALF * clamp((-down > up ? down : up) / plane.reach, -1, 1));
};
