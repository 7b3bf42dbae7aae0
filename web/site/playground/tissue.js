/** A piece of tissue that can be edited: vessels and nuclei as shapes, and the two images that they make. */

import { normal, uniform } from "./random.js";

// Lengths are in pixels of 2 µm, shapes as in damm_lite/simulate.py.
const SPACING = 4.5;
const CORD = 12.5; // nuclei crowd within 25 µm of a vessel

export class Tissue {
  constructor(size) {
    this.size = size;
    this.vessels = []; // {radius, points: [[x, y], ...]}
    this.nuclei = []; // {x, y, long, short, angle, brightness}
    this.shift = [0, 0]; // of the image of the nuclei, to the right and down
  }

  /** Begin a vessel at a point; the one that was begun grows with `extend`. */
  begin(x, y, radius = 2.5) {
    this.vessels.push({ radius, points: [[x, y]] });
  }

  /** Lead the newest vessel on to (x, y), in steps of at most a pixel. */
  extend(x, y) {
    const { points } = this.vessels.at(-1);
    const [fromX, fromY] = points.at(-1);
    const count = Math.ceil(Math.hypot(x - fromX, y - fromY));
    for (let k = 1; k <= count; k++) {
      points.push([fromX + ((x - fromX) * k) / count, fromY + ((y - fromY) * k) / count]);
    }
  }

  /** The vessel nearest to (x, y), or undefined where none is within `reach` of its wall. */
  nearest(x, y, reach = 4) {
    const [distance, vessel] = this.vessels
      .map((vessel) => [gap(vessel, x, y), vessel])
      .reduce((a, b) => (b[0] < a[0] ? b : a), [Infinity]);
    return distance <= reach ? vessel : undefined;
  }

  /** Put a nucleus at (x, y), unless another is already there. */
  place(x, y, next = Math.random) {
    if (this.nuclei.some((other) => Math.hypot(other.x - x, other.y - y) < 0.6 * SPACING)) {
      return;
    }
    const long = 1.75 + 0.75 * next();
    const [short, angle, brightness] = [long * (0.6 + 0.4 * next()), Math.PI * next(), 0.6 + 0.4 * next()];
    this.nuclei.push({ x, y, long, short, angle, brightness });
  }

  /** Remove the nuclei and the vessels at (x, y). */
  erase(x, y) {
    this.nuclei = this.nuclei.filter((nucleus) => Math.hypot(nucleus.x - x, nucleus.y - y) > SPACING);
    this.vessels = this.vessels.filter((vessel) => gap(vessel, x, y) > 0);
  }

  /** Both images as the network wants them, and the nuclei where they act: size * size numbers in [-1, 1]. */
  images() {
    const vessels = this.paint(this.vessels.flatMap(tube));
    const acting = this.paint(this.nuclei.map(ellipse)).map((value, k) => value * (1 - vessels[k]));
    const imaged = misregister(acting, this.size, this.shift.map(Math.round));
    return { primary: vessels.map(toSigned), secondary: imaged.map(toSigned), acting: acting.map(toSigned) };
  }

  /** The brightest of all shapes {x, y, reach, value(dx, dy)} at each pixel's centre. */
  paint(shapes) {
    const image = new Float32Array(this.size ** 2);
    for (const { x, y, reach, value } of shapes) {
      for (let row = Math.max(0, Math.floor(y - reach)); row < Math.min(this.size, y + reach); row++) {
        for (let column = Math.max(0, Math.floor(x - reach)); column < Math.min(this.size, x + reach); column++) {
          const k = row * this.size + column;
          image[k] = Math.max(image[k], value(column + 0.5 - x, row + 0.5 - y));
        }
      }
    }
    return image;
  }
}

/** Random tissue like that of the simulator: winding vessels, and nuclei that crowd around them. */
export function randomTissue(size, seed) {
  const next = uniform(seed);
  const gauss = normal(next);
  const tissue = new Tissue(size);
  const count = Math.ceil((3 + Math.floor(3 * next())) * (size / 64) ** 2);
  for (let k = 0; k < count; k++) {
    const points = winding(next, gauss, size);
    tissue.vessels.push({ radius: 1.5 + 2 * next(), points });
  }
  // A smooth random field out of plane waves, as rough as white noise smoothed over the width of a cord.
  const waves = Array.from({ length: 8 }, () => [gauss(), gauss(), 2 * Math.PI * next()]);
  const field = (x, y) =>
    0.5 * waves.reduce((sum, [u, v, phase]) => sum + Math.cos((u * x + v * y) / (Math.SQRT2 * CORD) + phase), 0);
  for (let row = -1; row * SPACING * 0.866 < size + SPACING; row++) {
    for (let column = -1; column * SPACING < size + SPACING; column++) {
      const jitter = () => 0.6 * (next() - 0.5);
      const x = SPACING * (column + 0.5 * Math.abs(row % 2) + jitter());
      const y = SPACING * (0.866 * row + jitter());
      const distance = Math.max(0, Math.min(...tissue.vessels.map((vessel) => gap(vessel, x, y))));
      const crowding = 1 / (1 + Math.exp(-1.7 * (field(x, y) + 3 * (1 - distance / CORD))));
      if (next() < crowding) {
        tissue.place(x, y, next);
      }
    }
  }
  return tissue;
}

function winding(next, gauss, size) {
  const length = 2 + Math.floor(-60 * Math.log(1 - next()));
  let [x, y, heading] = [0, 0, 2 * Math.PI * next()];
  const path = Array.from({ length }, () => {
    heading += 0.15 * gauss();
    return [(x += Math.cos(heading)), (y += Math.sin(heading))];
  });
  const [middleX, middleY] = path[Math.floor(length / 2)];
  const [toX, toY] = [size * next() - middleX, size * next() - middleY];
  return path.map(([x, y]) => [x + toX, y + toY]);
}

/** Distance from a vessel's wall; negative inside. */
function gap({ radius, points }, x, y) {
  return Math.min(...points.map(([px, py]) => Math.hypot(px - x, py - y))) - radius;
}

function tube({ radius, points }) {
  const value = (dx, dy) => clip(radius - Math.hypot(dx, dy) + 0.5);
  return points.map(([x, y]) => ({ x, y, reach: radius + 1, value }));
}

function ellipse({ x, y, long, short, angle, brightness }) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const value = (dx, dy) => {
    const across = Math.hypot((dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short);
    return brightness * clip((1 - across) * short + 0.5);
  };
  return { x, y, reach: long + 1, value };
}

/** Move an image by whole pixels, reflecting at the border. */
function misregister(image, size, [right, down]) {
  const reflect = (i) => (i < 0 ? -1 - i : i >= size ? 2 * size - 1 - i : i);
  return image.map((_, k) => image[reflect(Math.floor(k / size) - down) * size + reflect((k % size) - right)]);
}

function clip(value) {
  return Math.min(1, Math.max(0, value));
}

function toSigned(value) {
  return 2 * value - 1;
}
