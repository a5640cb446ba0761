// Trained weights into the bytes of the user's ONNX file: everything else in it stays as it is.

const GRAPH = 7; // of ModelProto
const INITIALIZER = 5; // of GraphProto
const [DIMS, DATA_TYPE, NAME, RAW_DATA] = [1, 2, 8, 9]; // of TensorProto
const FLOAT = 1;

/** A copy of the file whose initializers have the values of the state's parameters, {shape, data} by name. */
export function withParameters(file, parameters) {
  const bytes = file.slice();
  const missing = new Set(Object.keys(parameters));
  for (const graph of fields(bytes, 0, bytes.length)) {
    if (graph.number !== GRAPH) continue;
    for (const field of fields(bytes, graph.begin, graph.end)) {
      if (field.number !== INITIALIZER) continue;
      const tensor = read(bytes, field);
      if (!missing.delete(tensor.name)) continue;
      write(bytes, tensor, parameters[tensor.name]);
    }
  }
  if (missing.size) throw new Error(`the file has no ${[...missing].join(', ')}`);
  return bytes;
}

function read(bytes, { begin, end }) {
  const tensor = { dims: [] };
  for (const field of fields(bytes, begin, end)) {
    if (field.number === DIMS && field.value !== undefined) tensor.dims.push(field.value);
    else if (field.number === DIMS) for (let at = field.begin; at < field.end;) {
      const [value, next] = varint(bytes, at);
      tensor.dims.push(value);
      at = next;
    }
    else if (field.number === DATA_TYPE) tensor.type = field.value;
    else if (field.number === NAME) tensor.name = new TextDecoder().decode(bytes.subarray(field.begin, field.end));
    else if (field.number === RAW_DATA) tensor.raw = field;
  }
  return tensor;
}

/** A state has one row a unit; a file has that, or one column a unit. */
function write(bytes, { name, dims, type, raw }, { shape, data }) {
  const straight = String(dims) === String(shape);
  const across = dims.length === 2 && dims[0] === shape[1] && dims[1] === shape[0];
  if (type !== FLOAT || raw === undefined || raw.end - raw.begin !== 4 * data.length || straight === across) {
    throw new Error(`'${name}' of this file is not written to: it has to be raw float32 of ${shape.join(' × ')}, or its transpose`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + raw.begin);
  const [rows, columns] = straight ? [1, data.length] : shape;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      view.setFloat32(4 * (column * rows + row), data[row * columns + column], true);
    }
  }
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
      if (start + length > end) throw new Error('the file is cut off');
      yield { number, begin: start, end: start + length };
      at = start + length;
    } else if (kind === 1 || kind === 5) {
      at = next + (kind === 1 ? 8 : 4);
    } else {
      throw new Error('this is no ONNX file');
    }
  }
}

function varint(bytes, at) {
  let [value, factor] = [0, 1];
  for (;;) {
    if (at >= bytes.length) throw new Error('the file is cut off');
    const byte = bytes[at++];
    value += (byte % 128) * factor;
    factor *= 128;
    if (byte < 128) return [value, at];
  }
}
