/** The rows of images below the drawing: where they stand, their colours, and what several of them share. */

// Colour ramp, and the values at its two ends; spreads as in chapter 04.
const ROLES = {
  primary: ["primary", -1, 1],
  secondary: ["secondary", -1, 1],
  target: ["target", -1, 1],
  confidence: ["confidence", 0, 1],
  spread: ["confidence", 0, 0.25],
};

/** {row: [title, {panel: [role, caption]}]}, with `count` samples and as many exact draws. */
export function rowsOf(count) {
  const numbered = (name) =>
    Object.fromEntries(Array.from({ length: count }, (_, k) => [`${name}${k + 1}`, ["target", `${name} ${k + 1}`]]));
  const summary = (name) => ({
    [`${name}Mean`]: ["target", `mean of the ${name}s`],
    [`${name}Spread`]: ["spread", `spread of the ${name}s`],
  });
  return {
    steps: [
      "One sample, step by step",
      {
        xt: ["target", "noisy image x<sub>t</sub>"],
        uni: ["target", "uni-modal branch: vessels alone"],
        multi: ["target", "multi-modal branch: with the nuclei"],
        map: ["confidence", "confidence u in the nuclei"],
        x0: ["target", "prediction: what the gate takes"],
      },
    ],
    samples: [`${count} samples: other noise each time`, { ...numbered("sample"), ...summary("sample") }],
    draws: [
      `${count} exact draws of the simulator: other nuclei for the same vessels each time`,
      { ...numbered("draw"), ...summary("draw"), truth: ["target", "true map of the nuclei above, where they belong"] },
    ],
  };
}

export function rowHtml(name, [title, panels]) {
  const figures = Object.entries(panels).map(
    ([panel, [, caption]]) =>
      `<figure data-panel="${panel}"><canvas></canvas><figcaption>${caption}<output></output></figcaption></figure>`,
  );
  return `<section data-row="${name}" aria-labelledby="playground-${name}">
    <p class="playground-title" id="playground-${name}">${title}</p>
    <p class="playground-note" hidden></p>
    <div class="playground-panels">${figures.join("")}</div>
  </section>`;
}

/** RGBA of an image in the book's colours. */
export function coloured(image, role, colours) {
  const [name, low, high] = ROLES[role];
  const ramp = colours[name];
  const pixels = new Uint8ClampedArray(4 * image.length);
  for (let k = 0; k < image.length; k++) {
    const value = (image[k] - low) / (high - low);
    const at = 3 * Math.round(255 * Math.min(1, Math.max(0, value)));
    for (let channel = 0; channel < 3; channel++) {
      pixels[4 * k + channel] = ramp[at + channel];
    }
    pixels[4 * k + 3] = 255;
  }
  return pixels;
}

export function paint(canvas, pixels, size) {
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(new ImageData(pixels, size), 0, 0);
}

/** The mean of several images, at each pixel. */
export function mean(images) {
  return images[0].map((_, k) => average(images.map((image) => image[k])));
}

/** The standard deviation of several images, at each pixel. */
export function spread(images) {
  const middle = mean(images);
  const squares = (k) => images.reduce((sum, image) => sum + (image[k] - middle[k]) ** 2, 0);
  return middle.map((_, k) => Math.sqrt(squares(k) / (images.length - 1)));
}

export function average(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The mean absolute difference of two images. */
export function distance(image, other) {
  return average(image.map((value, k) => Math.abs(value - other[k])));
}
