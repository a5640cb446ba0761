// A trainer's folder on the disk, for Node.

import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What Trainer.load reads a folder by. */
export function fromFolder(folder) {
  return async (name) => new Uint8Array(await readFile(join(folder, name)));
}

/** Write a state, complete or not at all. */
export async function saveTo(path, bytes) {
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, bytes);
  await rename(temporary, path);
}
