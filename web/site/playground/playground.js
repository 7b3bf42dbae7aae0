/** The page's figure: tissue to edit on the left, the network at work on it on the right. */

import { denoise, loadNetwork, loadRuntime } from "./denoise.js";
import { noise } from "./random.js";
import { randomTissue, Tissue } from "./tissue.js";

const FOLDER = new URL("./", import.meta.url);
const PANELS = {
  xt: ["target", "noisy image x<sub>t</sub>"],
  uni: ["target", "uni-modal branch: vessels alone"],
  multi: ["target", "multi-modal branch: with the nuclei"],
  map: ["confidence", "confidence u in the nuclei"],
  x0: ["target", "prediction: what DAMMP takes"],
};
const TOOLS = { draw: "Draw a vessel", move: "Move a vessel", place: "Place nuclei", erase: "Erase" };

const FORM = `
  <div class="playground-edit">
    <canvas class="playground-tissue" tabindex="0" role="application" aria-roledescription="drawing"
      aria-label="Tissue: vessels green, nuclei blue" aria-describedby="playground-keys"></canvas>
    <p id="playground-keys">Mouse or finger: press and drag. Keyboard: arrow keys move the cross, the space bar presses
      and lets go.</p>
  </div>
  <form class="playground-form">
    <fieldset><legend>Tool</legend>${Object.entries(TOOLS)
      .map(([tool, name]) => `<label><input type="radio" name="tool" value="${tool}"> ${name}</label>`)
      .join("")}</fieldset>
    <fieldset><legend>Misregister the nuclei</legend>
      <label>right <input type="range" name="right"> <output name="rightText"></output></label>
      <label>down <input type="range" name="down"> <output name="downText"></output></label></fieldset>
    <div class="playground-buttons">
      <button type="button" name="fresh">New tissue</button> <button type="button" name="clear">Clear</button>
      <button type="submit" name="run">Load the network (5 MB) and denoise</button>
    </div>
  </form>
  <p class="playground-status" role="status"></p>
  <div class="playground-panels">${Object.entries(PANELS)
    .map(([name, [, text]]) => `<figure data-panel="${name}"><canvas></canvas><figcaption>${text}</figcaption></figure>`)
    .join("")}</div>`;

class Playground {
  constructor(root, settings, runtime) {
    root.innerHTML = FORM;
    Object.assign(this, { root, settings, runtime, seed: 1, run: 0, cross: [settings.size / 2, settings.size / 2] });
    this.canvas = root.querySelector(".playground-tissue");
    this.form = root.querySelector("form").elements;
    this.status = root.querySelector("[role=status]");
    this.form.tool.value = "draw";
    for (const name of ["right", "down"]) {
      Object.assign(this.form[name], { min: -40, max: 40, step: settings.pixel, value: 0 });
    }
    this.listen();
    this.show(randomTissue(settings.size, this.seed));
    this.say("Draw, move, erase; then let the network denoise.");
  }

  listen() {
    this.form.fresh.addEventListener("click", () => this.show(randomTissue(this.settings.size, ++this.seed)));
    this.form.clear.addEventListener("click", () => this.show(new Tissue(this.settings.size)));
    for (const name of ["right", "down"]) {
      this.form[name].addEventListener("input", () => this.draw());
      this.form[name].addEventListener("change", () => this.edited());
    }
    this.root.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.press(this.place(event));
    });
    this.canvas.addEventListener("pointermove", (event) => this.drag(this.place(event)));
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, () => this.release());
    }
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("focus", () => this.draw());
    this.canvas.addEventListener("blur", () => this.release());
  }

  /** Where on the tissue an event is, in pixels of the image. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.settings.size / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) {
      this.drag(this.cross.map((at, k) => Math.min(this.settings.size, Math.max(0, at + 2 * steps[event.key][k]))));
    } else if (event.key === " ") {
      this.pressed ? this.release() : this.press(this.cross);
    } else {
      return;
    }
    event.preventDefault();
  }

  press(at) {
    [this.pressed, this.cross, this.last] = [true, at, at];
    this.held = this.tissue.nearest(...at, 8);
    if (this.form.tool.value === "draw") {
      this.tissue.begin(...at);
    }
    this.drag(at);
  }

  drag(at) {
    this.cross = at;
    if (this.pressed) {
      const actions = {
        draw: () => this.tissue.extend(...at),
        move: () => this.held?.points.forEach((point) => point.forEach((_, k) => (point[k] += at[k] - this.last[k]))),
        place: () => this.tissue.place(...at),
        erase: () => this.tissue.erase(...at),
      };
      actions[this.form.tool.value]();
      this.last = at;
    }
    this.draw();
  }

  release() {
    if (this.pressed) {
      this.pressed = false;
      this.edited();
    }
    this.draw();
  }

  show(tissue) {
    this.tissue = tissue;
    this.draw();
    this.edited();
  }

  draw() {
    const { right, down, rightText, downText } = this.form;
    this.tissue.shift = [right, down].map((slider) => slider.value / this.settings.pixel);
    [rightText.value, downText.value] = [right, down].map((slider) => `${slider.value} µm`);
    this.images = this.tissue.images();
    const vessels = this.coloured(this.images.primary, "primary");
    const nuclei = this.coloured(this.images.secondary, "secondary");
    paint(this.canvas, vessels.map((value, k) => Math.max(value, nuclei[k])), this.settings.size);
    if (document.activeElement === this.canvas) {
      const context = this.canvas.getContext("2d");
      const [x, y] = this.cross.map(Math.floor);
      context.fillStyle = this.pressed ? "#ffd400" : "#ffffff";
      for (const [dx, dy] of [[-4, 0], [2, 0]]) {
        context.fillRect(x + dx, y + dy, 3, 1);
        context.fillRect(x + dy, y + dx, 1, 3);
      }
    }
  }

  /** RGBA of an image in [-1, 1], or of the confidence in [0, 1], in the book's colours. */
  coloured(image, role) {
    const ramp = this.settings.colours[role];
    const pixels = new Uint8ClampedArray(4 * image.length);
    for (let k = 0; k < image.length; k++) {
      const value = role === "confidence" ? image[k] : (image[k] + 1) / 2;
      const at = 3 * Math.round(255 * Math.min(1, Math.max(0, value)));
      for (let channel = 0; channel < 3; channel++) {
        pixels[4 * k + channel] = ramp[at + channel];
      }
      pixels[4 * k + 3] = 255;
    }
    return pixels;
  }

  say(text) {
    this.status.textContent = text;
  }

  /** After an edit, denoise anew if the network is there. */
  edited() {
    if (this.network) {
      this.start();
    }
  }

  async start() {
    const run = ++this.run;
    try {
      await this.load();
      const began = performance.now();
      const { primary, secondary } = this.images;
      const first = noise(this.seed, this.settings.size ** 2);
      for await (const step of denoise(this.network, this.settings, primary, secondary, first)) {
        await pause();
        if (run !== this.run) {
          return; // a newer run has begun
        }
        this.report(step, began);
      }
    } catch (error) {
      this.say(`The network could not run here: ${error.message}`);
    }
  }

  async load() {
    if (this.network) {
      return;
    }
    this.say("Loading the network …");
    this.loading ??= loadRuntime(this.runtime).then((ort) => loadNetwork(ort, FOLDER));
    try {
      this.network = await this.loading;
    } finally {
      this.loading = undefined;
    }
    this.form.run.textContent = "Denoise again";
  }

  report(step, began) {
    for (const [name, [role]] of Object.entries(PANELS)) {
      const panel = this.root.querySelector(`[data-panel=${name}]`);
      paint(panel.querySelector("canvas"), this.coloured(step[name], role), Math.sqrt(step[name].length));
      panel.classList.toggle("chosen", name === step.branch);
    }
    const count = this.settings.steps.length;
    const sign = step.branch === "multi" ? "≥" : "<";
    const name = step.branch === "multi" ? "multi-modal" : "uni-modal";
    const time = step.i + 1 === count ? ` Done in ${((performance.now() - began) / 1000).toFixed(1)} s.` : "";
    this.say(
      `Step ${step.i + 1} of ${count}: c = ${step.confidence.toFixed(2)} ${sign} γ = ${this.settings.gamma}, ` +
        `DAMMP takes the ${name} branch.${time}`,
    );
  }
}

/** Let the page paint and answer; a timer would wait longer than there is need for. */
function pause() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

function paint(canvas, pixels, size) {
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(new ImageData(pixels, size), 0, 0);
}

const root = document.getElementById("playground-figure");
const script = document.querySelector("script[data-runtime]");
if (typeof WebAssembly === "undefined") {
  root.textContent =
    "This browser has no WebAssembly, or has it switched off, so the network cannot run here. " +
    "The chapters show the same, as pictures.";
} else {
  const settings = await (await fetch(new URL("playground.json", FOLDER))).json();
  new Playground(root, settings, new URL(script.dataset.runtime, document.baseURI).href);
}
