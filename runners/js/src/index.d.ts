/** What was given does not fit the trainer; the message says why. */
export class TrainerError extends Error {}

export type DType =
  | 'float16' | 'float32' | 'float64' | 'int8' | 'uint8' | 'int16' | 'uint16' | 'int32' | 'uint32' | 'int64' | 'uint64'
  | 'bool' | 'string';

export type Values =
  | Float32Array | Float64Array | Int8Array | Uint8Array | Uint8ClampedArray | Int16Array | Uint16Array | Int32Array
  | Uint32Array | BigInt64Array | BigUint64Array | readonly number[] | readonly bigint[] | readonly string[] | readonly boolean[];

/** An array as it comes from the runtime. */
export interface NamedArray {
  dtype: DType;
  shape: number[];
  data: any;
}

/** Values row by row; where rows are of a fixed size, their shape need not be given. */
export type ArrayLike = Values | { data: Values; shape: readonly number[] } | { data: Values; dims: readonly number[] };

export type Rows = ArrayLike | Record<string, ArrayLike> | Prepared;

/** One array, or one for each head; classes by number or by name. */
export type Targets = ArrayLike | readonly ArrayLike[];

export type State = Record<string, NamedArray>;

/** From a file's name to its bytes. */
export type Reader = (name: string) => Promise<Uint8Array>;

/** The content of trainer.json; docs/trainer.schema.json is its schema. */
export interface Description {
  format: 'onnxsurgeon-trainer';
  version: 1;
  producer: string;
  model: { name: string; topology: string; parameters: number };
  files: Record<string, { path: string; bytes: number; opset?: number; ir?: number; operators?: string[] }>;
  inputs: { name: string; dtype: DType; shape: (number | null)[]; batch: number | 'any' | 'none'; scale?: unknown; offset?: unknown }[];
  rows: { name: string; dtype: DType; shape: (number | null)[]; input: string | null; scale?: unknown; offset?: unknown }[];
  targets: {
    name: string; head: string; loss: 'cross-entropy' | 'binary-cross-entropy' | 'squared-error'; dtype: DType;
    shape: (number | null)[]; outputs: number; positions: number; classes: string[]; units?: number[];
    metric: { name: 'accuracy' | 'r2' | 'agreement'; output: string; per_row: number };
  }[];
  outputs: { name: string; dtype: DType; shape: (number | null)[] }[];
  state: {
    name: string; kind: 'parameter' | 'moment_1' | 'moment_2' | 'steps'; of?: string; shape: number[]; dtype: DType;
    stored?: 'straight' | 'transposed';
  }[];
  frozen: string[];
  next: string;
  batch: { size: number; fixed: boolean };
  optimizer: { name: string; learning_rate: number; weight_decay: number; [setting: string]: number | string };
  dropout?: { units: number; inputs: number; seed: string };
  schedule: { kind: string; warmup: number };
  shuffle: string;
  reports_losses: boolean;
}

export interface LoadOptions {
  /** onnxruntime-web or onnxruntime-node; onnxruntime-web is imported where none is given. */
  ort?: any;
  /** Options of the runtime's sessions, such as `{ executionProviders: ['webgpu'] }`. */
  session?: Record<string, unknown>;
  /** Whether to train by step.onnx; by default where the session is for WebGPU and the file is there. */
  step?: boolean;
  /** A state to go on from. */
  state?: Uint8Array;
}

export interface TrainOptions {
  /** How many epochs more; 1. */
  epochs?: number;
  batchSize?: number;
  learningRate?: number;
  /** Of the order of the rows, and of what dropout leaves out; 0. */
  seed?: number;
  /** How many epochs the schedule is for in all; those until now and these. */
  course?: number;
  /** Steps of one run of the runtime; 256. */
  stepsPerRun?: number;
  /** Called after each such run. */
  onSteps?: (progress: { done: number; steps: number; losses: ArrayLike }) => void;
}

export interface Epoch {
  /** Counted from 1. */
  number: number;
  /** Mean over the epoch's rows; undefined where the files do not report losses. */
  loss: number | undefined;
  /** Mean of each batch. */
  losses: Float64Array;
}

/** Rows as the trained part takes them: computed once, to be used often. */
export class Prepared {
  readonly rows: Record<string, NamedArray>;
}

/** A folder that `onnxsurgeon export-trainer` wrote, and a state that is trained. */
export class Trainer {
  private constructor();
  /** Load a folder: its address, a function from a file's name to its bytes, or bytes by name. */
  static load(source: string | URL | Reader | Record<string, Uint8Array | ArrayBuffer>, options?: LoadOptions): Promise<Trainer>;
  readonly description: Description;
  /** Weights and moments by name; may be replaced, as by an average of several. */
  state: State;
  /** How many epochs the state has seen. */
  epoch: number;
  /** Go on from a state. */
  restore(bytes: Uint8Array): void;
  /** The state as a file of safetensors. */
  save(): Uint8Array;
  /** The user's model with its weights as they are now, from the bytes of the file that the trainer was made from. */
  patchModel(bytes: Uint8Array): Uint8Array;
  /** Rows as train and evaluate take them. */
  prepare(rows: Rows): Promise<Prepared>;
  /** Train for some epochs more, each when it is asked for; without targets, towards what a teacher says. */
  train(rows: Rows, targets?: Targets, options?: TrainOptions): AsyncGenerator<Epoch, void, void>;
  /** Mean loss and metric over rows. */
  evaluate(rows: Rows, targets?: Targets): Promise<{ loss: number; accuracy?: number; r2?: number; agreement?: number } & Record<string, number>>;
  /** The targets that a teacher gives, one array for each head. */
  taught(rows: Rows): Promise<NamedArray[]>;
  /** The model's outputs by name. */
  predict(rows: Rows): Promise<Record<string, NamedArray>>;
  /** Let the runtime free what it holds. */
  release(): Promise<void>;
}

/** The order of an epoch's rows, the same in every runner. */
export function orderOf(seed: number, epoch: number, count: number): Int32Array;

/** What the learning rate of a step is multiplied by. */
export function rateFactor(kind: string, position: number, total: number, warmup?: number): number;

/** A copy of an ONNX file with a state's weights; `description` is the content of trainer.json. */
export function patchModel(file: Uint8Array, description: Description, state: State): Uint8Array;

/** Arrays and notes of a file of safetensors. */
export function readState(bytes: Uint8Array): { arrays: State; notes: Record<string, string> };

/** The bytes of such a file. */
export function writeState(arrays: State, notes?: Record<string, string>): Uint8Array;
