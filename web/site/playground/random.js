/** Random numbers from a seed, so that a picture can be made again and the tests can know its noise. */

/** Uniform numbers in [0, 1): mulberry32, whose 32 bits of state walk by a fixed odd number. */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Standard normal numbers out of uniform ones, by Box and Muller's transform. */
export function normal(next) {
  return () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}

/** `length` standard normal numbers. */
export function noise(seed, length) {
  return Float32Array.from({ length }, normal(uniform(seed)));
}
