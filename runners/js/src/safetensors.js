// Files of safetensors: eight bytes of length, a header of JSON, arrays.

import { ARRAYS, TrainerError, sizeOf } from './arrays.js';

const TYPES = { F16: 'float16', F32: 'float32', F64: 'float64', I32: 'int32', I64: 'int64', U8: 'uint8' };
const LONGEST = 1e8; // bytes of a header
const CODES = Object.fromEntries(Object.entries(TYPES).map(([code, dtype]) => [dtype, code]));

/** Arrays by name and the notes of a file; nothing is believed of it that its length does not bear out. */
export function readState(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 8 || view.getBigUint64(0, true) > BigInt(Math.min(bytes.length - 8, LONGEST))) {
    throw new TrainerError('no file of safetensors: its header is longer than the file, or than any such');
  }
  const begin = 8 + Number(view.getBigUint64(0, true));
  let header;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, begin)));
  } catch (error) {
    throw new TrainerError(`no file of safetensors: ${error.message}`);
  }
  if (header === null || typeof header !== 'object' || Array.isArray(header)) throw new TrainerError('no file of safetensors');
  const arrays = Object.create(null);
  const body = bytes.subarray(begin);
  const spans = [];
  for (const [name, each] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const dtype = TYPES[each?.dtype];
    const [from, to] = Array.isArray(each?.data_offsets) ? each.data_offsets : [];
    const whole = (value) => Number.isSafeInteger(value) && value >= 0;
    const ok = dtype !== undefined && Array.isArray(each.shape) && each.shape.every(whole) && whole(from) && whole(to) && from <= to
      && to <= body.length && to - from === sizeOf(each.shape) * ARRAYS[dtype].BYTES_PER_ELEMENT;
    if (!ok) throw new TrainerError(`no file of safetensors: '${name}' does not fit`);
    spans.push([from, to]);
    arrays[name] = { dtype, shape: each.shape, data: new ARRAYS[dtype](body.slice(from, to).buffer) };
  }
  const notes = header.__metadata__ ?? {};
  if (typeof notes !== 'object' || Object.values(notes).some((note) => typeof note !== 'string')) throw new TrainerError('no file of safetensors: its notes are no texts');
  spans.sort(([a, b], [c, d]) => a - c || b - d);
  if ([...spans, [body.length]].some(([from], i) => from !== (i ? spans[i - 1][1] : 0))) {
    throw new TrainerError('no file of safetensors: its arrays overlap, or leave gaps');
  }
  return { arrays, notes };
}

/** The bytes of a file with these arrays and notes. */
export function writeState(arrays, notes = undefined) {
  const header = notes === undefined ? {} : { __metadata__: notes };
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(arrays)) {
    header[name] = { dtype: CODES[dtype], shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  let text = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(32);
  padded.set(text);
  const bytes = new Uint8Array(8 + padded.length + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded.length), true);
  bytes.set(padded, 8);
  let at = 8 + padded.length;
  for (const { data } of Object.values(arrays)) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return bytes;
}
