import { readFile } from 'node:fs/promises';
import * as ort from 'onnxruntime-web';
import { Trainer } from 'onnxsurgeon-runner';
import { fromFolder, saveTo } from 'onnxsurgeon-runner/node';

ort.env.wasm.numThreads = 1; // small networks are faster so

const { x, y } = JSON.parse(await readFile('digits.json', 'utf8'));
const trainer = await Trainer.load(fromFolder('trainer'), { ort });
for await (const epoch of trainer.train(x, y, { epochs: 5 })) {
  console.log(`epoch ${epoch.number}: loss ${epoch.loss.toFixed(3)}`);
}
console.log(await trainer.evaluate(x, y));
const { probabilities } = await trainer.predict(x.slice(0, 3 * 64));
console.log(probabilities.shape);
await saveTo('state.safetensors', trainer.save());
