// A whole training in Node: node whole.mjs RUNTIME TRAINER DATA.safetensors EPOCHS SEED STATE, from runners/js. Prints what it evaluates.

import { readFile, writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { resolve } from 'node:path';

const [runtime, folder, file, epochs, seed, state] = process.argv.slice(2);
const here = (path) => import(pathToFileURL(resolve(path)));
const ort = await here(`node_modules/${runtime}`);
const { Trainer, readState } = await here('src/index.js');
const { fromFolder } = await here('src/node.js');
if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
const options = { ort, session: { intraOpNumThreads: 1, interOpNumThreads: 1 } };
const trainer = await Trainer.load(fromFolder(folder), options);
const { rows: { data: rows }, targets: { data: targets } } = readState(new Uint8Array(await readFile(file))).arrays;
for await (const _ of trainer.train(rows, targets, { epochs: Number(epochs), seed: Number(seed) }));
await writeFile(state, trainer.save());
console.log(JSON.stringify(await trainer.evaluate(rows, targets)));
