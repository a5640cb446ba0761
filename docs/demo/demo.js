// The page: what is drawn, touched and shown.

import { Pad, rowOf, variants } from './drawing.js';
import { Learner } from './learner.js';
import { Curve, drawNeurons, drawRow } from './pictures.js';

const TEACHING = { steps: 200, milliseconds: 700 };
const ALL = { steps: 900, milliseconds: 2500, learningRate: 0.004 };
const VARIANTS = 24; // of a drawing that is taught
const element = (id) => document.getElementById(id);
const shown = new Intl.NumberFormat('en', { maximumFractionDigits: 3, minimumFractionDigits: 3 });
const frame = () => new Promise((done) => {
  // A page in the background gets no frames, and goes on learning.
  const late = setTimeout(done, 100);
  requestAnimationFrame(() => { clearTimeout(late); done(); });
});

let seed = 1;
/** Numbers from 0 to 1 that are the same on every visit (Marsaglia's xorshift). */
function random() {
  for (const [shift, left] of [[13, true], [17, false], [5, true]]) seed ^= left ? seed << shift : seed >>> shift;
  return (seed >>> 0) / 2 ** 32;
}

class Page {
  constructor(learner) {
    this.learner = learner;
    this.taught = [];
    this.computing = 0;
    this.accuracy = undefined;
    this.curve = new Curve(element('curve'));
    this.bars = bars((digit) => this.teach(digit));
    this.pad = new Pad(element('pad'), () => this.drawn());
    this.buttons = { clear: () => this.pad.clear(), scratch: () => this.learnAll(), reset: () => this.reset() };
    for (const [id, press] of Object.entries(this.buttons)) element(id).addEventListener('click', press);
    element('model').addEventListener('click', () => download('digits.onnx', learner.model()));
    element('state').addEventListener('click', () => download('digits.safetensors', learner.state()));
    document.addEventListener('keydown', (event) => this.key(event));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.redraw());
    new ResizeObserver(() => this.neurons()).observe(element('neurons'));
    const { model } = learner.trainer.description;
    element('hidden').textContent = learner.neurons.count;
    element('tests').textContent = learner.tests;
    element('about').textContent = `The network: ${model.topology}, ${model.parameters.toLocaleString('en')} numbers.`;
  }

  async start() {
    await this.measure();
    this.figures();
    this.neurons();
    this.enable(true);
    element('status').hidden = true;
    element('main').removeAttribute('aria-busy');
  }

  /** Something was drawn or wiped away: what is it now? */
  async drawn() {
    const { strokes } = this.pad;
    element('hint').hidden = strokes.length > 0;
    if (!this.busy) element('ask').textContent = 'Wrong? Touch the right digit.';
    this.row = strokes.length ? rowOf(strokes) : undefined;
    drawRow(element('seen'), this.row);
    this.neurons();
    await this.guess();
  }

  async guess() {
    const { row } = this;
    const shares = row === undefined ? undefined : await this.learner.predict(row);
    if (row !== this.row) return; // drawn on meanwhile
    const best = shares === undefined ? -1 : shares.indexOf(Math.max(...shares));
    element('digit').textContent = best < 0 ? '?' : best;
    element('sure').textContent = best < 0 ? 'draw something' : `${shares[best] > 0.99 ? 'over 99' : Math.round(100 * shares[best])}% sure`;
    this.bars.forEach((bar, digit) => {
      bar.style.setProperty('--share', shares?.[digit] ?? 0);
      bar.classList.toggle('best', digit === best);
      bar.lastChild.textContent = shares === undefined ? '' : `${Math.round(100 * shares[digit])}%`;
      bar.disabled = this.busy || row === undefined;
    });
  }

  /** Learn that what is drawn is this digit. */
  async teach(digit) {
    if (this.busy || this.row === undefined) return;
    const { row } = this;
    this.taught.push({ digit, row, strokes: this.pad.strokes, rows: variants(this.pad.strokes, VARIANTS, random) });
    this.list();
    element('ask').textContent = `It learns that this is a ${digit} …`;
    await this.learn(`“${digit}”`, TEACHING, this.taught);
    element('ask').textContent = `It learned that in ${Math.round(this.computing)} ms of computing.`;
  }

  /** All digits, by a network that has forgotten everything. */
  async learnAll() {
    if (this.busy) return;
    this.learner.forget(random);
    await this.learn('from nothing', ALL, this.taught);
  }

  /** Train at such a pace that it can be watched. */
  async learn(name, { steps, milliseconds, learningRate }, taught) {
    this.busy = true;
    element('answer').setAttribute('aria-busy', 'true'); // not every share on the way is read out
    this.enable(false);
    this.curve.mark(name);
    this.computing = 0;
    try {
      const begin = performance.now();
      for (let done = 0, turn = 0; done < steps; turn++) {
        await frame();
        const due = Math.ceil((steps * (performance.now() - begin)) / milliseconds);
        const now = Math.min(Math.max(due - done, 1), steps - done, 100);
        const found = await this.learner.train(now, taught, learningRate);
        done += now;
        this.computing += found.milliseconds;
        this.curve.add(found.losses);
        if (turn % 4 === 0 || done === steps) await this.measure();
        this.figures();
        this.neurons();
        await this.guess();
      }
    } catch (error) {
      failed(error);
    } finally {
      this.busy = false;
      element('answer').removeAttribute('aria-busy');
      this.enable(true);
      await this.guess();
    }
  }

  async reset() {
    if (this.busy) return;
    this.learner.reset();
    this.taught = [];
    this.curve.clear();
    this.computing = 0;
    this.list();
    this.curve.draw();
    await this.measure();
    this.figures();
    this.neurons();
    await this.guess();
  }

  async measure() {
    this.accuracy = (await this.learner.evaluate()).accuracy;
  }

  figures() {
    const mean = this.curve.means.at(-1);
    element('steps').textContent = this.learner.steps.toLocaleString('en');
    element('loss').textContent = mean === undefined ? '–' : shown.format(mean);
    element('time').textContent = this.computing ? `${Math.round(this.computing)} ms` : '–';
    element('accuracy').textContent = `${(100 * this.accuracy).toFixed(1)}%`;
    element('accuracy').dataset.value = this.accuracy;
  }

  neurons() {
    drawNeurons(element('neurons'), this.learner.neurons, this.row);
  }

  redraw() {
    this.pad.draw();
    this.curve.draw();
    this.neurons();
    drawRow(element('seen'), this.row);
    this.list();
  }

  /** What was taught; touching it shows it again. */
  list() {
    element('none').hidden = this.taught.length > 0;
    element('taught').replaceChildren(...this.taught.map(({ digit, row, strokes }) => {
      const picture = Object.assign(document.createElement('canvas'), { width: 8, height: 8 });
      const button = Object.assign(document.createElement('button'), { type: 'button', title: 'show it again' });
      button.setAttribute('aria-label', `taught as ${digit}: show it again`);
      button.append(picture, document.createTextNode(digit));
      button.addEventListener('click', () => this.pad.show(strokes));
      const item = document.createElement('li');
      item.append(button);
      requestAnimationFrame(() => drawRow(picture, row)); // it has a colour once it is in the page
      return item;
    }));
  }

  enable(on) {
    for (const id of [...Object.keys(this.buttons), 'model', 'state']) element(id).disabled = !on;
    for (const bar of this.bars) bar.disabled = !on || this.row === undefined;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[0-9]$/.test(event.key)) this.teach(Number(event.key));
    else if (event.key === 'Escape' || event.key === 'Backspace') this.pad.clear();
  }
}

/** A button for each digit that shows how likely it is. */
function bars(teach) {
  return Array.from({ length: 10 }, (_, digit) => {
    const bar = Object.assign(document.createElement('button'), { type: 'button', disabled: true, className: 'bar' });
    bar.setAttribute('aria-label', `It is a ${digit}`);
    for (const kind of ['name', 'track', 'share']) bar.append(Object.assign(document.createElement('span'), { className: kind }));
    bar.firstChild.textContent = digit;
    bar.addEventListener('click', () => teach(digit));
    element('bars').append(bar);
    return bar;
  });
}

function download(name, bytes) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function failed(error) {
  console.error(error);
  element('status').hidden = false;
  element('status').classList.add('failed');
  element('status').textContent = `That did not work: ${error.message}`;
}

try {
  const page = new Page(await Learner.load(document.baseURI));
  await page.start();
} catch (error) {
  failed(error);
}
navigator.serviceWorker?.register('offline.js').catch(() => {}); // the page works without it too
