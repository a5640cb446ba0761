import type { Reader } from './index.js';

/** What `Trainer.load` reads a folder by. */
export function fromFolder(folder: string): Reader;

/** Write a state, complete or not at all. */
export function saveTo(path: string, bytes: Uint8Array): Promise<void>;
