// node client.mjs TRAINER PORT ROUNDS ROWS.json: trains on its own rows, and sends the server nothing but weights.
import { readFile } from 'node:fs/promises';
import * as ort from 'onnxruntime-web';
import { Trainer } from 'onnxsurgeon-runner';
import { fromFolder } from 'onnxsurgeon-runner/node';

const [folder, port, rounds, file] = process.argv.slice(2);
const { x, y } = JSON.parse(await readFile(file, 'utf8'));
ort.env.wasm.numThreads = 1;
const trainer = await Trainer.load(fromFolder(folder), { ort });
for (let round = 0; round < Number(rounds); round++) {
  const epoch = trainer.epoch;
  trainer.restore(new Uint8Array(await (await fetch(`http://127.0.0.1:${port}/${round}`)).arrayBuffer()));
  trainer.epoch = epoch; // a new order of the rows in each round
  for await (const { loss } of trainer.train(x, y)) console.log(`round ${round + 1}: loss ${loss.toFixed(4)}`);
  const answer = await fetch(`http://127.0.0.1:${port}/${round}`, {
    method: 'POST', headers: { 'x-rows': String(y.length) }, body: trainer.save(),
  });
  if (!answer.ok) throw new Error(await answer.text());
}
