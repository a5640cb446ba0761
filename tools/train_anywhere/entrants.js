// What trains in the browser: the exported files by ONNX Runtime, and TensorFlow.js.

import * as ort from './ort/ort.wasm.bundle.min.mjs';
import { Trainer, orderOf, readState } from './runner/index.js';
import { stepsASecond } from './repeated.mjs';

ort.env.wasm.wasmPaths = { wasm: new URL('ort/ort-wasm-simd-threaded.wasm', import.meta.url).href };
const [WIDTH, CLASSES] = [784, 10];

/** Rows of bytes and their classes, the same for everyone. */
async function rowsOf(file) {
  const { arrays } = readState(new Uint8Array(await (await fetch(file)).arrayBuffer()));
  return { x: arrays.x.data, y: arrays.y.data, rows: arrays.y.data.length };
}

const load = () => Trainer.load(new URL('trainer/', import.meta.url), { ort });

async function epochOf(trainer, { x, y }, batch) {
  for await (const _ of trainer.train(x, y, { batchSize: batch }));
}

/** ONNX Runtime: steps a second (where `seconds` are given), the weights after one epoch, and the memory of WebAssembly. */
async function byRuntime({ file, batch, seconds, threads }) {
  ort.env.wasm.numThreads = threads;
  const data = await rowsOf(file);
  const trainer = await load();
  await epochOf(trainer, data, batch);
  const weights = parametersOf(trainer);
  const rate = seconds && await stepsASecond(() => epochOf(trainer, data, batch), data.rows / batch, seconds);
  return { rate, weights, heap: heap() };
}

const parametersOf = ({ description, state }) => (
  description.state.filter(({ kind }) => kind === 'parameter').map(({ name }) => Array.from(state[name].data)));

/**
 * TensorFlow.js: the faster of `fit` of its layers and of a loop over its operations. The loop trains on the same batches
 * from the same weights as the exported files, so that its weights can be compared.
 */
async function byTensorFlow({ backend, file, batch, seconds, threads }) {
  if (backend === 'wasm') {
    tf.wasm.setWasmPaths(new URL('tf/tfjs-backend-wasm/dist/', import.meta.url).href);
    tf.wasm.setThreadsCount(threads);
  }
  if (backend !== 'default' && !(await tf.setBackend(backend))) throw new Error(`TensorFlow.js has no backend ${backend} here`);
  await tf.ready();
  const { x, y, rows } = await rowsOf(file);
  const trainer = await load();
  const rate = trainer.description.optimizer.learning_rate;
  const given = trainer.description.state.filter(({ kind }) => kind === 'parameter')
    .map(({ name, shape }) => {
      const whole = tf.tensor(trainer.state[name].data, shape);
      return shape.length === 2 ? whole.transpose() : whole;
    });
  const pixels = tf.tensor2d(Float32Array.from(x, (value) => value / 255), [rows, WIDTH]);
  const classes = tf.oneHot(tf.tensor1d(y, 'int32'), CLASSES).toFloat();

  const variables = given.map((each) => tf.variable(each));
  const optimizer = tf.train.sgd(rate);
  let number = 0;
  const loop = async () => {
    const order = orderOf(0, number++, rows);
    for (let at = 0; at < rows; at += batch) {
      tf.tidy(() => {
        const chosen = tf.tensor1d(order.subarray(at, at + batch), 'int32');
        const [some, wanted] = [pixels.gather(chosen), classes.gather(chosen)];
        optimizer.minimize(() => {
          const hidden = some.matMul(variables[0]).add(variables[1]).relu();
          return tf.losses.softmaxCrossEntropy(wanted, hidden.matMul(variables[2]).add(variables[3]));
        }, false, variables);
      });
    }
    await variables[0].data(); // what runs beside this page's code has ended
  };
  await loop();
  const weights = await Promise.all(variables.map(async (each) => (
    Array.from(await (each.rank === 2 ? each.transpose() : each).data()))));
  if (!seconds) return { weights, heap: heap() };
  const looped = await stepsASecond(loop, rows / batch, seconds);

  const model = tf.sequential({ layers: [
    tf.layers.dense({ units: 128, activation: 'relu', inputShape: [WIDTH] }),
    tf.layers.dense({ units: CLASSES, activation: 'softmax' }),
  ] });
  model.compile({ optimizer: tf.train.sgd(rate), loss: 'categoricalCrossentropy' });
  const fit = () => model.fit(pixels, classes, { batchSize: batch, epochs: 1, shuffle: true, yieldEvery: 'never', verbose: 0 });
  const fitted = await stepsASecond(fit, rows / batch, seconds);
  return { rate: Math.max(looped, fitted), looped, fitted, weights, backend: tf.getBackend(), heap: heap() };
}

globalThis.entrants = { byRuntime, byTensorFlow };
