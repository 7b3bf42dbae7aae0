/** The page's figure: tissue to edit; below it the network at work on it, and what the simulator says. */

import { denoise, loadNetwork, loadRuntime } from "./denoise.js";
import { average, coloured, mean, paint, rowHtml, rowsOf, spread } from "./panels.js";
import { noise } from "./random.js";
import { randomTissue, Tissue } from "./tissue.js";

const FOLDER = new URL("./", import.meta.url);
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
  <p class="playground-step"></p>`;

class Playground {
  /** `stored` holds, for each tissue that is offered, the true map and then the exact draws, in bytes. */
  constructor(root, settings, stored, runtime) {
    const rows = rowsOf(settings.draws);
    root.innerHTML = FORM + Object.entries(rows).map(([name, row]) => rowHtml(name, row)).join("");
    Object.assign(this, { root, settings, stored, runtime, run: 0, cross: [settings.size / 2, settings.size / 2] });
    this.panels = Object.assign({}, ...Object.values(rows).map(([, panels]) => panels));
    this.canvas = root.querySelector(".playground-tissue");
    this.form = root.querySelector("form").elements;
    this.status = root.querySelector("[role=status]");
    this.form.tool.value = "draw";
    for (const name of ["right", "down"]) {
      Object.assign(this.form[name], { min: -40, max: 40, step: settings.pixel, value: 0 });
    }
    this.listen();
    this.offer(1);
    this.say("Draw, move, erase; then let the network denoise.");
  }

  listen() {
    this.form.fresh.addEventListener("click", () => this.offer((this.number % this.settings.tissues) + 1));
    this.form.clear.addEventListener("click", () => this.edit(new Tissue(this.settings.size)));
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

  /** Edit one of the tissues for which the simulator's draws are stored: number 1, 2, … */
  offer(number) {
    const tissue = randomTissue(this.settings.size, number);
    Object.assign(this, { number, offered: tissue.images() });
    const { size, draws } = this.settings;
    const maps = Array.from({ length: draws + 1 }, (_, k) => {
      const start = ((number - 1) * (draws + 1) + k) * size ** 2;
      return Float32Array.from(this.stored.subarray(start, start + size ** 2), (byte) => byte / 127.5 - 1);
    });
    this.show("truth", maps[0]);
    this.showAll("draw", maps.slice(1));
    this.edit(tissue);
  }

  edit(tissue) {
    this.tissue = tissue;
    this.draw();
    this.edited();
  }

  draw() {
    const { right, down, rightText, downText } = this.form;
    this.tissue.shift = [right, down].map((slider) => slider.value / this.settings.pixel);
    [rightText.value, downText.value] = [right, down].map((slider) => `${slider.value} µm`);
    this.images = this.tissue.images();
    const vessels = coloured(this.images.primary, "primary", this.settings.colours);
    const nuclei = coloured(this.images.secondary, "secondary", this.settings.colours);
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

  show(name, image) {
    const panel = this.panel(name);
    const pixels = coloured(image, this.panels[name][0], this.settings.colours);
    paint(panel.querySelector("canvas"), pixels, Math.sqrt(image.length));
    panel.classList.remove("stale");
  }

  /** Show several images, and from two on their mean and spread; returns the average spread, as text. */
  showAll(name, images) {
    images.forEach((image, k) => this.show(`${name}${k + 1}`, image));
    if (images.length < 2) {
      return "";
    }
    const deviation = spread(images);
    this.show(`${name}Mean`, mean(images));
    this.show(`${name}Spread`, deviation);
    const text = average(deviation).toFixed(3);
    this.panel(`${name}Spread`).querySelector("output").value = `: ${text} on average`;
    return text;
  }

  panel(name) {
    return this.root.querySelector(`[data-panel=${name}]`);
  }

  say(text) {
    this.status.textContent = text;
  }

  /** After an edit, hide what the simulator said of other tissue, and denoise anew if the network is there. */
  edited() {
    const isOffered = (name) => this.images[name].every((value, k) => value === this.offered[name][k]);
    const row = this.root.querySelector("[data-row=draws]");
    const note = row.querySelector(".playground-note");
    note.textContent =
      `The simulator has not seen these vessels. Its draws are stored for ${this.settings.tissues} tissues: ` +
      "New tissue brings the next of them.";
    note.hidden = isOffered("primary");
    row.querySelector(".playground-panels").hidden = !note.hidden;
    this.panel("truth").hidden = !isOffered("acting");
    if (this.network) {
      this.start();
    }
  }

  /** Draw all samples, one after the other; give up as soon as a newer run has begun. */
  async start() {
    const run = ++this.run;
    try {
      await this.load();
      this.say("Denoising …");
      this.root.querySelectorAll("[data-row=samples] figure").forEach((panel) => panel.classList.add("stale"));
      const began = performance.now();
      const { primary, secondary } = this.images;
      const samples = [];
      let [text, trusting] = ["", 0];
      while (samples.length < this.settings.draws) {
        const first = noise(samples.length + 1, this.settings.size ** 2);
        let step;
        for await (step of denoise(this.network, this.settings, primary, secondary, first)) {
          await pause();
          if (run !== this.run) {
            return;
          }
          this.report(step, samples.length + 1);
        }
        samples.push(step.x0);
        trusting += step.branch === "multi";
        text = this.showAll("sample", samples);
      }
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      this.say(
        `Done in ${seconds} s: ${samples.length} samples, of which ${trusting} end with the multi-modal branch. ` +
          `Their spread is ${text} on average.`,
      );
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

  report(step, number) {
    if (number === 1) {
      for (const name of ["xt", "uni", "multi", "map", "x0"]) {
        this.show(name, step[name]);
        this.panel(name).classList.toggle("chosen", name === step.branch);
      }
    }
    this.show(`sample${number}`, step.x0);
    const { steps, draws, gamma } = this.settings;
    const sign = step.branch === "multi" ? "≥" : "<";
    const name = step.branch === "multi" ? "multi-modal" : "uni-modal";
    this.root.querySelector(".playground-step").textContent =
      `Sample ${number} of ${draws}, step ${step.i + 1} of ${steps.length}: ` +
      `c = ${step.confidence.toFixed(2)} ${sign} γ = ${gamma}, DAMMP takes the ${name} branch.`;
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

async function fetched(name) {
  const answer = await fetch(new URL(name, FOLDER));
  if (!answer.ok) {
    throw new Error(`${name}: expected a file, got status ${answer.status}`);
  }
  return answer;
}

const root = document.getElementById("playground-figure");
const script = document.querySelector("script[data-runtime]");
if (typeof WebAssembly === "undefined") {
  root.textContent =
    "This browser has no WebAssembly, or has it switched off, so the network cannot run here. " +
    "The chapters show the same, as pictures.";
} else {
  const [settings, stored] = await Promise.all([fetched("playground.json"), fetched("draws.bin")]);
  new Playground(root, await settings.json(), new Uint8Array(await stored.arrayBuffer()), new URL(script.dataset.runtime, document.baseURI).href);
}
