// The network of this page: it predicts, learns and is saved. Everything is done by the files of `trainer/`.

import * as ort from './ort/ort.wasm.bundle.min.mjs';
import { Trainer, orderOf, readState } from './runner/index.js';

const BATCH = 16;
const OWN = 6; // rows of a batch that are of what was taught, the others are of the digits it came with

ort.env.wasm.wasmPaths = { wasm: new URL('ort/ort-wasm-simd-threaded.wasm', import.meta.url).href };
ort.env.wasm.numThreads = 1; // so small a network is faster so

export class Learner {
  static async load(base) {
    const bytesOf = async (path) => {
      const answer = await fetch(new URL(path, base));
      if (!answer.ok) throw new Error(`${path}: ${answer.status} ${answer.statusText}`);
      return new Uint8Array(await answer.arrayBuffer());
    };
    const [trainer, data, model] = await Promise.all([
      Trainer.load(new URL('trainer/', base), { ort }), bytesOf('digits.safetensors'), bytesOf('digits.onnx')]);
    const learner = new Learner(trainer, readState(data).arrays, model);
    await learner._warmUp();
    return learner;
  }

  constructor(trainer, { rows, labels, test_rows: testRows, test_labels: testLabels }, model) {
    this.trainer = trainer;
    this.tests = testLabels.data.length;
    this._given = trainer.save();
    this._model = model;
    [this._rows, this._labels, this._testRows, this._testLabels] = [rows.data, labels.data, testRows.data, testLabels.data];
    this._width = rows.data.length / labels.data.length;
    this._draws = 0;
    this._last = Promise.resolve();
  }

  /** The first layer's weights, one row a neuron, and its biases. */
  get neurons() {
    const [weight, bias] = this.trainer.description.state.slice(0, 2).map(({ name }) => this.trainer.state[name]);
    return { weight: weight.data, bias: bias.data, count: weight.shape[0] };
  }

  get steps() {
    return this.trainer.state.steps.data[0];
  }

  /** Of each digit, how likely the row is to be one. */
  async predict(row) {
    const found = await this._alone(() => this.trainer.predict(row));
    return Object.values(found)[0].data;
  }

  /** Loss and accuracy on digits that are not trained on. */
  evaluate() {
    return this._alone(() => this.trainer.evaluate(this._testRows, this._testLabels));
  }

  /**
   * Train some steps on what was taught, [{rows, digit}], among the digits it came with; returns the loss of each step and
   * the milliseconds that they took.
   */
  train(steps, taught, learningRate = undefined) {
    const count = steps * BATCH;
    const rows = new Uint8Array(count * this._width);
    const labels = new Int32Array(count);
    const others = this._drawn(count);
    for (let i = 0; i < count; i++) {
      const put = (row, label) => { rows.set(row, i * this._width); labels[i] = label; };
      if (taught.length && i % BATCH < OWN) {
        // The last is asked for half the time: it is what is to be seen learnt.
        const which = i % 2 ? taught.at(-1) : taught[Math.floor(i / 2) % taught.length];
        put(which.rows[(i * 7 + this._draws) % which.rows.length], which.digit);
      } else {
        const from = others[i % others.length];
        put(this._rows.subarray(from * this._width, (from + 1) * this._width), this._labels[from]);
      }
    }
    return this._alone(async () => {
      const begin = performance.now();
      const losses = [];
      // The runner mixes these rows once more, a few batches at a time.
      for await (const epoch of this.trainer.train(rows, labels, { batchSize: BATCH, seed: this._draws, learningRate })) {
        losses.push(...epoch.losses);
      }
      return { losses, milliseconds: performance.now() - begin };
    });
  }

  /** As it came. */
  reset() {
    this.trainer.restore(this._given);
  }

  /** Weights as of a network that has learnt nothing (Glorot's), and an optimizer that has done nothing. */
  forget(random) {
    const state = Object.create(null);
    for (const { name, kind, shape, dtype } of this.trainer.description.state) {
      const data = this.trainer.state[name].data.map(() => 0);
      if (kind === 'parameter' && shape.length === 2) {
        const bound = Math.sqrt(6 / (shape[0] + shape[1]));
        data.forEach((_, i) => { data[i] = (2 * random() - 1) * bound; });
      }
      state[name] = { dtype, shape, data };
    }
    this.trainer.state = state;
  }

  /** The model with its weights as they are now. */
  model() {
    return this.trainer.patchModel(this._model);
  }

  state() {
    return this.trainer.save();
  }

  /** Row numbers, each digit's turn coming once before any comes again. */
  _drawn(count) {
    const found = [];
    while (found.length < count) found.push(...orderOf(17, this._draws++, this._labels.length).subarray(0, count - found.length));
    return found;
  }

  /** A first run of every file is slow; nobody has to wait for it later. */
  async _warmUp() {
    await this.train(2, []);
    this.reset();
    await this.predict(new Uint8Array(this._width));
  }

  /** One thing after the other: a state is not read while it is trained. */
  _alone(work) {
    const done = this._last.then(work);
    this._last = done.catch(() => {});
    return done;
  }
}
