// Trains what `onnxsurgeon export-trainer` wrote, with ONNX Runtime alone: in the browser and in Node.

import { TrainerError, fitted, joined, sizeOf, sliced, taken } from './arrays.js';
import { patchModel } from './model.js';
import { readState, writeState } from './safetensors.js';
import { orderOf, rateFactor, rounded } from './schedule.js';

export { TrainerError, orderOf, patchModel, rateFactor, readState, writeState };

const CHUNK = 1024; // rows of a run that does not train
const RUN = 256; // steps of a run that does

/** A trainer's folder, and a state that is trained. */
export class Trainer {
  /** @private */
  constructor(read, ort, description, options) {
    this.description = description;
    this.epoch = 0;
    this.state = Object.create(null);
    this._read = read;
    this._ort = ort;
    this._options = options;
    this._sessions = new Map();
  }

  /**
   * Load a folder: its address, a function from a file's name to its bytes, or an object of bytes by name.
   * Options: `ort`, the runtime (onnxruntime-web is imported where none is given); `session`, options of its sessions,
   * such as {executionProviders: ['webgpu']}; `step`, whether to train by step.onnx; `state`, bytes to go on from.
   */
  static async load(source, { ort, session = {}, step = undefined, state = undefined } = {}) {
    const read = reader(source);
    const runtime = ort ?? (await import('onnxruntime-web'));
    const description = JSON.parse(new TextDecoder().decode(await read('trainer.json')));
    if (description?.format !== 'onnxsurgeon-trainer' || description.version !== 1) {
      throw new TrainerError('trainer.json is no trainer of version 1');
    }
    const onGpu = (session.executionProviders ?? []).some((each) => (each.name ?? each) === 'webgpu');
    const byStep = step ?? (onGpu && description.files.step !== undefined);
    if (byStep && description.files.step === undefined) throw new TrainerError('there is no step.onnx: export with --step');
    const trainer = new Trainer(read, runtime.InferenceSession ? runtime : runtime.default, description, { session, byStep, onGpu });
    trainer.restore(state ?? (await read(description.files.state.path)));
    return trainer;
  }

  /** Go on from a state that `save` gave, or that came from elsewhere. */
  restore(bytes) {
    const { arrays, notes } = readState(bytes);
    const state = Object.create(null);
    for (const { name, dtype, shape } of this.description.state) {
      const found = arrays[name];
      if (found === undefined) throw new TrainerError(`the state lacks '${name}'`);
      if (found.dtype !== dtype || String(found.shape) !== String(shape)) {
        throw new TrainerError(`'${name}' is ${found.dtype} [${found.shape}] in this state, not ${dtype} [${shape}]`);
      }
      if (dtype.startsWith('float') && !found.data.every(Number.isFinite)) {
        throw new TrainerError(`'${name}' holds values that are not finite: the training diverged`);
      }
      state[name] = found;
    }
    this.state = state;
    this.epoch = Number(notes.epoch ?? 0);
  }

  /** The state as the bytes of a file of safetensors, for `restore` and `onnxsurgeon import-state`. */
  save() {
    return writeState(this.state, { epoch: String(this.epoch) });
  }

  /** The user's model with its weights as they are now: from the bytes of the file that the trainer was made from. */
  patchModel(bytes) {
    return patchModel(bytes, this.description, this.state);
  }

  /** Rows as train and evaluate take them, computed once where there is a features.onnx. */
  async prepare(rows) {
    if (rows instanceof Prepared) return rows;
    const given = this._inputs(rows);
    if (this.description.files.features === undefined) {
      return new Prepared(Object.fromEntries(this.description.rows.map((each) => [each.name, given[each.input]])));
    }
    return new Prepared(await this._inChunks('features', given, {}));
  }

  /**
   * Train for some epochs more; yields {number, loss, losses} after each. Without targets, a teacher gives them. Options: `epochs` (1), `batchSize`,
   * `learningRate` (as exported), `seed` (0), `course`, the schedule's epochs in all (those until now and these),
   * `stepsPerRun` (256), `onSteps`, called with {done, steps, losses} after each run.
   */
  async* train(rows, targets, options = {}) {
    const { epochs = 1, seed = 0, stepsPerRun = RUN, onSteps = undefined } = options;
    const { batch, optimizer, schedule } = this.description;
    const wanted = options.batchSize ?? batch.size;
    if (batch.fixed && wanted !== batch.size) throw new TrainerError(`these files take batches of ${batch.size} rows alone`);
    const { feeds, count } = await this._labelled(rows, targets);
    const size = batch.fixed ? wanted : Math.min(wanted, count);
    const rate = options.learningRate ?? optimizer.learning_rate;
    const full = Math.floor(count / size);
    if (full < 1) throw new TrainerError(`${count} rows are fewer than the ${size} of a batch`);
    const rest = batch.fixed ? 0 : count % size;
    const steps = full + (rest > 0 ? 1 : 0);
    const total = steps * (options.course ?? this.epoch + epochs);
    const warmup = rounded(schedule.warmup * steps);
    for (let end = this.epoch + epochs; this.epoch < end;) {
      const order = orderOf(seed, this.epoch, count);
      const losses = [];
      let [state, done, sum] = [this.state, 0, 0];
      while (done < steps) {
        const [run, width] = done < full ? [Math.min(stepsPerRun, full - done), size] : [1, rest];
        const rates = Float32Array.from({ length: run }, (_, i) => (
          rate * rateFactor(schedule.kind, this.epoch * steps + done + i, total, warmup)));
        const chosen = order.subarray(done * size, done * size + run * width);
        const found = await this._steps(feeds, chosen, run, width, rates, state, seed);
        await breath();
        state = found.state;
        done += run;
        for (const loss of found.losses) sum += loss * width;
        losses.push(...found.losses);
        onSteps?.({ done, steps, losses: found.losses });
      }
      this.state = state;
      this.epoch += 1;
      const loss = losses.length ? sum / (full * size + rest) : undefined;
      yield { number: this.epoch, loss, losses: Float64Array.from(losses) };
    }
  }

  /** Mean loss and metric, `accuracy` or `r2`, over rows; of several heads the mean, and each as `accuracy_1`, …. */
  async evaluate(rows, targets) {
    const { feeds, count } = await this._labelled(rows, targets);
    const sums = {};
    for (let first = 0; first < count; first += CHUNK) {
      const last = Math.min(first + CHUNK, count);
      const numbers = { dtype: 'int32', shape: [last - first], data: Int32Array.from({ length: last - first }, (_, i) => i) };
      const part = Object.fromEntries(Object.entries(feeds).map(([name, array]) => [name, sliced(array, first, last)]));
      const found = await this._run('evaluate', { ...part, ...this._parameters(), numbers });
      for (const [name, { data }] of Object.entries(found)) sums[name] = Array.from(data, (value, i) => value + (sums[name]?.[i] ?? 0));
    }
    const result = { loss: sums.loss[0] / count };
    const shares = {};
    for (const { name, metric } of this.description.targets) {
      const share = metric.name === 'r2' ? r2(feeds[name], sums[metric.output]) : sums[metric.output][0] / (count * metric.per_row);
      (shares[metric.name] ??= []).push(share);
    }
    for (const [name, values] of Object.entries(shares)) {
      result[name] = values.reduce((a, b) => a + b) / values.length;
      if (this.description.targets.length > 1) values.forEach((value, i) => { result[`${name}_${i + 1}`] = value; });
    }
    return result;
  }

  /** The targets that the teacher gives for rows, one array for each head: computed once, to be used often. */
  async taught(rows) {
    if (this.description.files.teacher === undefined) throw new TrainerError('targets: there is no teacher to give them');
    if (rows instanceof Prepared) throw new TrainerError('targets: a teacher wants the rows themselves; give what taught(rows) returns');
    const found = await this._inChunks('teacher', this._inputs(rows), {});
    return this.description.targets.map(({ name }) => found[name]);
  }

  /** The model's outputs for rows, by name: {dtype, shape, data}. */
  async predict(rows) {
    return this._inChunks('predict', this._inputs(rows), this._parameters());
  }

  /** Let the runtime free what it holds. */
  async release() {
    for (const session of this._sessions.values()) await (await session).release?.();
    this._sessions.clear();
  }

  _parameters() {
    const names = this.description.state.filter((each) => each.kind === 'parameter').map((each) => each.name);
    return Object.fromEntries(names.map((name) => [name, this.state[name]]));
  }

  async _labelled(rows, targets) {
    const { rows: prepared } = await this.prepare(rows);
    const count = Object.values(prepared)[0].shape[0];
    const heads = this.description.targets;
    const given = targets === undefined ? await this.taught(rows) : heads.length === 1 ? [targets] : targets;
    if (!Array.isArray(given) || given.length !== heads.length) throw new TrainerError(`targets: give an array of ${heads.length} arrays, one a head`);
    const feeds = { ...prepared };
    heads.forEach((head, i) => {
      const found = fitted(numbered(head, given[i]), head.dtype, head.shape, head.name);
      if (found.shape[0] !== count) throw new TrainerError(`${head.name}: ${found.shape[0]} rows for ${count}`);
      const wrong = head.dtype === 'int32' ? found.data.find((value) => value < 0 || value >= head.outputs) : undefined;
      if (wrong !== undefined) throw new TrainerError(`${head.name}: ${wrong} is no class from 0 to ${head.outputs - 1}`);
      feeds[head.name] = found;
    });
    return { feeds, count };
  }

  _inputs(rows) {
    const wanted = this.description.inputs;
    const isOne = ArrayBuffer.isView(rows) || Array.isArray(rows) || rows?.data !== undefined;
    if (isOne && wanted.length !== 1) throw new TrainerError(`rows: give arrays by name: ${wanted.map((each) => each.name)}`);
    const found = {};
    for (const { name, dtype, shape } of wanted) {
      const values = isOne ? rows : rows?.[name];
      if (values === undefined) throw new TrainerError(`rows: no array for the input '${name}'`);
      found[name] = fitted(values, dtype, shape, `the input '${name}'`);
    }
    const counts = new Set(Object.values(found).map((each) => each.shape[0]));
    if (counts.size !== 1 || counts.has(0)) throw new TrainerError('rows: every input needs the same number, and one at least');
    return found;
  }

  async _inChunks(file, given, more) {
    const { batch } = this.description.inputs[0];
    const count = Object.values(given)[0].shape[0];
    const step = batch === 'none' ? 1 : batch === 'any' ? CHUNK : batch;
    const parts = [];
    for (let first = 0; first < count; first += step) {
      const last = Math.min(first + step, count);
      const missing = typeof batch === 'number' ? step - (last - first) : 0;
      const feeds = {};
      for (const [name, array] of Object.entries(given)) {
        const piece = sliced(array, first, last);
        const whole = missing ? joined([piece, taken(array, new Int32Array(missing).fill(last - 1))]) : piece;
        feeds[name] = batch === 'none' ? { ...whole, shape: whole.shape.slice(1) } : whole;
      }
      const found = await this._run(file, { ...feeds, ...more });
      parts.push(Object.fromEntries(Object.entries(found).map(([name, array]) => [
        name, batch === 'none' ? { ...array, shape: [1, ...array.shape] } : sliced(array, 0, last - first)])));
    }
    return Object.fromEntries(Object.keys(parts[0]).map((name) => [name, joined(parts.map((part) => part[name]))]));
  }

  /** Train on the rows `chosen`, `run` batches of `width`: these rows alone are handed to the runtime. */
  async _steps(feeds, chosen, run, width, rates, state, seed) {
    const part = Object.fromEntries(Object.entries(feeds).map(([name, array]) => [name, taken(array, chosen)]));
    const batches = Int32Array.from({ length: run * width }, (_, i) => i);
    const prefix = this.description.next;
    // What dropout leaves out follows from the seed and the number of steps taken.
    if (this.description.dropout) part[this.description.dropout.seed] = { dtype: 'int32', shape: [], data: Int32Array.of(seed & 0x7fffffff) };
    if (!this._options.byStep) {
      const found = await this._run('train', {
        ...part,
        ...state,
        batches: { dtype: 'int32', shape: [run, width], data: batches },
        rates: { dtype: 'float32', shape: [run], data: rates },
      });
      const after = Object.create(null);
      for (const name in state) after[name] = found[prefix + name];
      return { state: after, losses: found.losses?.data ?? [] };
    }
    const session = await this._session('step');
    const rows = this._tensors(part);
    let tensors = this._tensors(state);
    const losses = [];
    for (let step = 0; step < run; step++) {
      const found = await session.run({
        ...rows,
        ...tensors,
        ...this._tensors({
          batches: { dtype: 'int32', shape: [1, width], data: batches.subarray(step * width, (step + 1) * width) },
          rates: { dtype: 'float32', shape: [1], data: rates.subarray(step, step + 1) },
        }),
      });
      const after = {};
      for (const name in tensors) {
        after[name] = found[prefix + name];
        if (step > 0) tensors[name].dispose?.();
      }
      tensors = after;
      if (found.losses) losses.push((await dataOf(found.losses))[0]);
    }
    const after = Object.create(null);
    for (const name in tensors) after[name] = { dtype: tensors[name].type, shape: [...tensors[name].dims], data: await dataOf(tensors[name]) };
    return { state: after, losses };
  }

  async _run(file, feeds) {
    const session = await this._session(file);
    const found = await session.run(this._tensors(feeds));
    const arrays = {};
    for (const name of session.outputNames) {
      arrays[name] = { dtype: found[name].type, shape: [...found[name].dims], data: await dataOf(found[name]) };
    }
    return arrays;
  }

  _tensors(arrays) {
    const tensors = {};
    for (const name in arrays) tensors[name] = new this._ort.Tensor(arrays[name].dtype, arrays[name].data, arrays[name].shape);
    return tensors;
  }

  _session(file) {
    if (!this._sessions.has(file)) this._sessions.set(file, this._made(file));
    return this._sessions.get(file);
  }

  async _made(file) {
    const bytes = await this._read(this.description.files[file].path);
    const options = { logSeverityLevel: 3, ...this._options.session };
    if (file === 'step' && this._options.onGpu) { // the state stays there from step to step
      options.preferredOutputLocation = Object.fromEntries(this.description.state.map(({ name }) => [this.description.next + name, 'gpu-buffer']));
    }
    return this._ort.InferenceSession.create(bytes, options);
  }
}

/** Rows as the trained part takes them; see Trainer.prepare. */
export class Prepared {
  constructor(rows) {
    this.rows = rows;
  }
}

const dataOf = async (tensor) => (tensor.location === undefined || tensor.location === 'cpu' ? tensor.data : tensor.getData(true));

function reader(source) {
  if (typeof source === 'function') return source;
  if (typeof source === 'string' || source instanceof URL) {
    const base = String(source).replace(/\/?$/, '/');
    return async (name) => {
      const answer = await fetch(base + name);
      if (!answer.ok) throw new TrainerError(`${base}${name}: ${answer.status} ${answer.statusText}`);
      return new Uint8Array(await answer.arrayBuffer());
    };
  }
  return async (name) => {
    const found = source[name];
    if (found === undefined) throw new TrainerError(`there is no ${name}`);
    return found instanceof Uint8Array ? found : new Uint8Array(found);
  };
}

/** Targets with names of classes as their numbers. */
function numbered(head, values) {
  if (!Array.isArray(values) || typeof values[0] !== 'string' || !head.classes.length) return values;
  const known = new Map(head.classes.map((name, i) => [name, i]));
  return values.map((name) => {
    if (!known.has(name)) throw new TrainerError(`${head.name}: '${name}' is not among the classes: ${head.classes.join(', ')}`);
    return known.get(name);
  });
}

/** The mean over the outputs of 1 − Σ (t − p)² / Σ (t − mean t)². */
function r2({ data, shape }, errors) {
  const width = shape[shape.length - 1];
  const rows = sizeOf(shape) / width;
  let sum = 0;
  for (let column = 0; column < width; column++) {
    let [mean, spread, least, most] = [0, 0, Infinity, -Infinity];
    for (let row = 0; row < rows; row++) {
      const value = data[row * width + column];
      [mean, least, most] = [mean + value / rows, Math.min(least, value), Math.max(most, value)];
    }
    for (let row = 0; row < rows; row++) spread += (data[row * width + column] - mean) ** 2;
    sum += most > least ? 1 - errors[column] / spread : errors[column] > 0 ? 0 : 1;
  }
  return sum / width;
}

/** Lets the page be drawn, and timers and clicks be heard: what wasm awaits on one thread leaves no room for them. */
function breath() {
  if (typeof setImmediate === 'function') return new Promise((resolve) => setImmediate(resolve));
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });
}
