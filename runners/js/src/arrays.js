// Typed arrays by the names of types that trainer.json and ONNX Runtime have.

export class TrainerError extends Error {
  name = 'TrainerError';
}

export const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
  string: Array,
};

/** Number of values in a tensor of that shape. */
export const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);

/** An array {dtype, shape, data} of the values given, converted where nothing is lost; `what` names it in errors. */
export function fitted(values, dtype, rowShape, what) {
  const given = values?.data !== undefined && (values.shape ?? values.dims) !== undefined
    ? { data: values.data, shape: [...(values.shape ?? values.dims)] }
    : { data: values, shape: undefined };
  if (!Array.isArray(given.data) && !ArrayBuffer.isView(given.data)) {
    throw new TrainerError(`${what}: expected an array, or {data, shape}`);
  }
  const data = convertedTo(given.data, dtype, what);
  const known = rowShape.includes(null) ? undefined : sizeOf(rowShape);
  const shape = given.shape ?? inferred(data.length, rowShape, known, what);
  const fits = shape.length === rowShape.length + 1 && rowShape.every((size, i) => size === null || size === shape[i + 1]);
  if (!fits || sizeOf(shape) !== data.length) {
    throw new TrainerError(`${what}: expected rows of shape [${rowShape}], found [${shape.slice(1)}] of ${data.length} values`);
  }
  return { dtype, shape, data };
}

function inferred(length, rowShape, known, what) {
  if (known === undefined) throw new TrainerError(`${what}: its rows are of no fixed size: give {data, shape}`);
  const rows = length / known;
  if (!Number.isInteger(rows)) throw new TrainerError(`${what}: ${length} values are no whole rows of shape [${rowShape}]`);
  return [rows, ...rowShape];
}

function convertedTo(data, dtype, what) {
  const kind = ARRAYS[dtype];
  if (kind === undefined) throw new TrainerError(`${what}: no arrays of ${dtype} here`);
  if (kind === Array) return Array.from(data, String);
  if (data instanceof kind) return data;
  if (data instanceof Uint8ClampedArray && kind === Uint8Array) return new Uint8Array(data.buffer, data.byteOffset, data.length);
  if (kind === BigInt64Array || kind === BigUint64Array) return kind.from(data, BigInt);
  const found = kind.from(data, Number);
  if (!dtype.startsWith('float')) {
    const lost = found.findIndex((value, i) => value !== Number(data[i]));
    if (lost >= 0) throw new TrainerError(`${what}: ${data[lost]} at ${lost} is no ${dtype}`);
  }
  return found;
}

/** Some rows of an array, copied one behind the other. */
export function taken(array, rows) {
  const width = sizeOf(array.shape.slice(1));
  const shape = [rows.length, ...array.shape.slice(1)];
  if (Array.isArray(array.data)) {
    return { ...array, shape, data: Array.from(rows).flatMap((row) => array.data.slice(row * width, (row + 1) * width)) };
  }
  const data = new array.data.constructor(rows.length * width);
  rows.forEach((row, i) => data.set(array.data.subarray(row * width, (row + 1) * width), i * width));
  return { ...array, shape, data };
}

/** Rows from `first` to `last`, not copied. */
export function sliced(array, first, last) {
  const width = sizeOf(array.shape.slice(1));
  const cut = Array.isArray(array.data) ? 'slice' : 'subarray';
  return { ...array, shape: [last - first, ...array.shape.slice(1)], data: array.data[cut](first * width, last * width) };
}

/** Arrays one behind the other along their first axis. */
export function joined(arrays) {
  if (arrays.length === 1) return arrays[0];
  const shape = [arrays.reduce((sum, each) => sum + each.shape[0], 0), ...arrays[0].shape.slice(1)];
  if (Array.isArray(arrays[0].data)) return { ...arrays[0], shape, data: arrays.flatMap((each) => each.data) };
  const data = new arrays[0].data.constructor(sizeOf(shape));
  let at = 0;
  for (const each of arrays) {
    data.set(each.data, at);
    at += each.data.length;
  }
  return { ...arrays[0], shape, data };
}
