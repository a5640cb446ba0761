// Trained weights into the bytes of the user's ONNX file: everything else in it stays as it is.

import { TrainerError } from './arrays.js';

const GRAPH = 7; // of ModelProto
const INITIALIZER = 5; // of GraphProto
const [DIMS, DATA_TYPE, FLOATS, NAME, RAW, DOUBLES] = [1, 2, 4, 8, 9, 10]; // of TensorProto
// By TensorProto's number of a type: bytes of a value, how one is written, and the field that may hold values beside raw_data.
const KINDS = {
  1: { name: 'float32', size: 4, field: FLOATS, put: (view, at, value) => view.setFloat32(at, value, true) },
  10: { name: 'float16', size: 2, field: undefined, put: (view, at, value) => view.setUint16(at, half(value), true) },
  11: { name: 'float64', size: 8, field: DOUBLES, put: (view, at, value) => view.setFloat64(at, value, true) },
};

/**
 * A copy of an ONNX file whose initializers have a state's values.
 *
 * `description` is the content of trainer.json; its `stored` says how the file that it was made from holds each weight.
 */
export function patchModel(file, description, state) {
  const wanted = new Map(description.state.filter(({ kind }) => kind === 'parameter').map((each) => [each.of, each]));
  for (const { of, stored } of wanted.values()) {
    if (stored === undefined) {
      throw new TrainerError(`trainer.json does not say that the model's file holds '${of}' as it is: use onnxsurgeon import-state`);
    }
  }
  const bytes = file.slice();
  for (const graph of fields(bytes, 0, bytes.length)) {
    if (graph.number !== GRAPH || graph.begin === undefined) continue;
    for (const field of fields(bytes, graph.begin, graph.end)) {
      if (field.number !== INITIALIZER || field.begin === undefined) continue;
      const tensor = tensorIn(bytes, field);
      const each = wanted.get(tensor.name);
      if (each === undefined) continue;
      wanted.delete(tensor.name);
      write(bytes, tensor, each, state[each.name].data);
    }
  }
  if (wanted.size) throw new TrainerError(`the file has no '${[...wanted.keys()].join("', '")}': it is another model's`);
  return bytes;
}

function tensorIn(bytes, { begin, end }) {
  const tensor = { dims: [], held: {} };
  for (const field of fields(bytes, begin, end)) {
    if (field.number === DIMS && field.value !== undefined) tensor.dims.push(field.value);
    else if (field.number === DIMS) for (let at = field.begin; at < field.end;) {
      const [value, next] = varint(bytes, at);
      tensor.dims.push(value);
      at = next;
    }
    else if (field.number === DATA_TYPE) tensor.type = field.value;
    else if (field.number === NAME && field.begin !== undefined) tensor.name = new TextDecoder().decode(bytes.subarray(field.begin, field.end));
    else if (field.begin !== undefined) tensor.held[field.number] = field;
  }
  return tensor;
}

function write(bytes, { name, dims, type, held }, { shape, stored }, data) {
  const kind = KINDS[type];
  const place = kind && (held[RAW] ?? held[kind.field]);
  const isTransposed = stored === 'transposed';
  const fits = isTransposed ? String(dims) === String([...shape].reverse()) : dims.reduce((product, size) => product * size, 1) === data.length;
  if (place === undefined || place.end - place.begin !== kind.size * data.length || !fits) {
    throw new TrainerError(`'${name}' of this file is not written to: trainer.json says that it holds ${isTransposed ? [...shape].reverse() : shape} there, of floats inside the file`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + place.begin, place.end - place.begin);
  const [rows, columns] = isTransposed ? shape : [1, data.length];
  const most = kind.name === 'float16' ? 65520 : Infinity; // from which on float16 has no number
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = data[row * columns + column];
      if (!(Math.abs(value) < most) || (kind.size === 4 && !Number.isFinite(Math.fround(value)))) {
        throw new TrainerError(`'${name}' is ${value} in the state, which ${kind.name} cannot hold`);
      }
      kind.put(view, kind.size * (column * rows + row), value);
    }
  }
}

const scratch = new DataView(new ArrayBuffer(4));

/** The bits of the float16 that is next to a finite value; of two as near, the even one. */
function half(value) {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  const [sign, size] = [(bits >>> 16) & 0x8000, bits & 0x7fffffff];
  if (size < 0x38800000) { // below 2^-14: a multiple of 2^-24
    const units = Math.abs(Math.fround(value)) * 2 ** 24;
    const below = Math.floor(units);
    const up = units - below > 0.5 || (units - below === 0.5 && below % 2 === 1);
    return sign | (below + (up ? 1 : 0));
  }
  return sign | ((size - 0x38000000 + 0xfff + ((size >>> 13) & 1)) >>> 13);
}

/** The fields of a protobuf message: {number, value} of numbers, {number, begin, end} of what has a length. */
function* fields(bytes, begin, end) {
  for (let at = begin; at < end;) {
    const [key, next] = varint(bytes, at);
    const [number, kind] = [Math.floor(key / 8), key % 8];
    if (kind === 0) {
      const [value, after] = varint(bytes, next);
      yield { number, value };
      at = after;
    } else if (kind === 2) {
      const [length, start] = varint(bytes, next);
      if (start + length > end) throw new TrainerError('the file is cut off');
      yield { number, begin: start, end: start + length };
      at = start + length;
    } else if (kind === 1 || kind === 5) {
      at = next + (kind === 1 ? 8 : 4);
    } else {
      throw new TrainerError('this is no ONNX file');
    }
  }
}

function varint(bytes, at) {
  let [value, factor] = [0, 1];
  for (let count = 0; count < 10; count++) {
    if (at >= bytes.length) throw new TrainerError('the file is cut off');
    const byte = bytes[at++];
    value += (byte % 128) * factor;
    factor *= 128;
    if (byte < 128) return [value, at];
  }
  throw new TrainerError('this is no ONNX file');
}
