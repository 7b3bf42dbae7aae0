/** Below the figure: what was measured on all tissues, by setting, and a hand-in of it for assignment A5. */

import { average } from "./panels.js";

const NAME = "a5_ablation_in_the_page";
const WIDEST = 0.04; // of a band
const KERNEL = { name: "python3", display_name: "Python 3", language: "python" };
const HTML = `
  <section data-row="ablation" aria-labelledby="playground-ablation">
    <p class="playground-title" id="playground-ablation">Measure on all tissues</p>
    <p>The network, the gate and the nuclei moved to the right, as they are chosen above. The error is that of the mean
      of the samples: its mean absolute difference from the true map, over all pixels and tissues.</p>
    <p><label>noise number <input type="number" name="noise" min="1" max="999" value="1"></label>
      <button type="button" name="measure">Measure</button> <span role="status" class="playground-measuring"></span></p>
    <div class="playground-table" tabindex="0" role="region" aria-label="Measurements"><table><thead><tr>
      <th>network</th><th>gate</th><th>moved, µm</th><th>noise numbers</th><th>c</th><th>error</th>
      <th>band from</th><th>to</th></tr></thead><tbody></tbody></table></div>
    <p><label>In words, for question 5 of assignment A5 <textarea name="words" rows="4"></textarea></label>
      <button type="button" name="save">Save the hand-in</button></p>
  </section>`;

/** The mean of several measurements, and the lowest and the highest. */
function errorsOf(measured) {
  const errors = measured.map(({ error }) => error);
  const text = (error) => error.toFixed(4);
  const mean = text(average(errors));
  return errors.length > 1 ? `${mean} (${text(Math.min(...errors))} to ${text(Math.max(...errors))})` : mean;
}

export class Ablation {
  constructor(root, playground) {
    root.insertAdjacentHTML("beforeend", HTML);
    this.section = root.querySelector("[data-row=ablation]");
    this.playground = playground;
    this.settings = new Map(); // {key: {setting, measured: [{noise, error, confidence}], band}}
    this.part("[name=measure]").addEventListener("click", () => this.measure());
    this.part("[name=save]").addEventListener("click", () => this.save());
  }

  part(selector) {
    return this.section.querySelector(selector);
  }

  say(text) {
    this.part("[role=status]").textContent = text;
  }

  /** Measure the setting that is chosen now, and add it to the table. */
  async measure() {
    await this.playground.using;
    const { form, settings, shared } = this.playground;
    const { gate, gamma } = this.playground.choice();
    const setting = { network: settings.name, gate, right: Number(form.right.value) };
    if (gate === "damm") {
      setting.gamma = gamma;
    }
    const number = Number(this.part("[name=noise]").value);
    try {
      const first = (number - 1) * shared.draws + 1;
      const progress = (tissue) => this.say(`Tissue ${tissue} of ${shared.tissues} …`);
      const found = await this.playground.measure(first, progress);
      if (!found) {
        this.say("Something else was begun: not measured.");
        return;
      }
      const key = JSON.stringify(setting);
      const row = this.settings.get(key) ?? { setting, measured: [], band: ["", ""] };
      row.measured = [...row.measured.filter(({ noise }) => noise !== number), { noise: number, ...found }];
      this.settings.set(key, row);
      this.draw();
      this.say(`Error ${found.error.toFixed(4)}, c = ${found.confidence.toFixed(2)}.`);
    } catch (error) {
      this.say(`Not measured: ${error.message}`);
    }
  }

  draw() {
    const body = this.part("tbody");
    body.replaceChildren(...[...this.settings.values()].map((row, k) => this.line(row, k + 1)));
  }

  line({ setting, measured, band }, number) {
    const row = document.createElement("tr");
    const confidence = average(measured.map((each) => each.confidence)).toFixed(2);
    const gate = setting.gate === "damm" ? `damm, γ = ${setting.gamma}` : setting.gate;
    const noises = measured.map(({ noise }) => noise).join(", ");
    const cells = [setting.network, gate, setting.right, noises, confidence, errorsOf(measured)];
    for (const text of cells) {
      row.insertCell().textContent = text;
    }
    for (const end of [0, 1]) {
      const input = document.createElement("input");
      Object.assign(input, { type: "number", min: 0, max: 2, step: 0.0005, value: band[end] });
      input.setAttribute("aria-label", `band of setting ${number}, ${end ? "to" : "from"}`);
      input.addEventListener("input", () => (band[end] = input.value));
      row.insertCell().append(input);
    }
    return row;
  }

  /** The settings that have a band. */
  given() {
    return [...this.settings.values()]
      .filter(({ band }) => band.every((end) => end !== ""))
      .map(({ setting, band: [low, high] }) => ({ ...setting, low: Number(low), high: Number(high) }));
  }

  /** These, as Python writes them. */
  answers() {
    const lines = this.given().map((row) => JSON.stringify(row));
    return `answers = [\n${lines.map((line) => `    ${line},\n`).join("")}]\n`;
  }

  /** The notebook that is handed in. */
  notebook() {
    const markdown = (id, source) => ({ cell_type: "markdown", id, metadata: {}, source });
    const code = { cell_type: "code", id: "answers", metadata: {}, execution_count: null, outputs: [] };
    return {
      cells: [
        markdown("title", "# A5 An ablation in the page\n\nMade by the playground of the book."),
        { ...code, source: this.answers() },
        markdown("words", `**Question 5: in words**\n\n${this.part("[name=words]").value}`),
      ],
      metadata: { kernelspec: KERNEL, otter: { assignment_name: NAME } },
      nbformat: 4,
      nbformat_minor: 5,
    };
  }

  save() {
    const file = new Blob([JSON.stringify(this.notebook(), null, 1)], { type: "application/x-ipynb+json" });
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: `${NAME}.ipynb` });
    link.click();
    URL.revokeObjectURL(link.href);
    const given = this.given();
    const wrong = given.filter(({ low, high }) => !(high - low >= 0 && high - low <= WIDEST + 1e-9));
    this.say(
      `Saved, with ${given.length} settings. Without a band, so not in it: ${this.settings.size - given.length}. ` +
        `With a band that is turned round or wider than ${WIDEST}: ${wrong.length}.`,
    );
  }
}
