// What trains in Node: node node.mjs RUNTIME TRAINER ROWS.safetensors BATCH SECONDS, from runners/js. Prints steps a second and weights.

import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { resolve } from 'node:path';
import { stepsASecond } from './repeated.mjs';

const [runtime, folder, file, batch, seconds] = process.argv.slice(2);
const here = (path) => import(pathToFileURL(resolve(path)));
const ort = await here(`node_modules/${runtime}`);
const { Trainer, readState } = await here('src/index.js');
const { fromFolder } = await here('src/node.js');
if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
const options = { ort, session: { intraOpNumThreads: 1, interOpNumThreads: 1 } };
const trainer = await Trainer.load(fromFolder(folder), options);
const { x: { data: x }, y: { data: y } } = readState(new Uint8Array(await readFile(file))).arrays;
const epoch = async () => { for await (const _ of trainer.train(x, y, { batchSize: Number(batch) })); };
await epoch();
const weights = trainer.description.state.filter(({ kind }) => kind === 'parameter')
  .map(({ name }) => Array.from(trainer.state[name].data));
console.log(JSON.stringify({ rate: await stepsASecond(epoch, y.length / Number(batch), Number(seconds)), weights }));
