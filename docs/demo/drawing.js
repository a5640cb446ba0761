// Strokes on a pad, and rows of 8 × 8 pixels from 0 to 16 as the network takes them.

const CELLS = 8;
const FINE = 8; // pixels of the hidden picture for each of a row
const PEN = 1.45; // cells wide, as in the digits that the network learned from
const WIDEST = 7; // cells

const hidden = document.createElement('canvas');
hidden.width = hidden.height = CELLS * FINE;
const picture = hidden.getContext('2d', { willReadFrequently: true });

/**
 * A drawing as a row: as in the data, its height fills the picture, its middle is the picture's, and its lines are equally
 * wide whatever its size was. `strokes` are arrays of points [x, y]; further arguments change the drawing a little.
 */
export function rowOf(strokes, { turn = 0, slant = 0, stretch = 1, pen = PEN } = {}) {
  const [sin, cos] = [Math.sin(turn), Math.cos(turn)];
  const moved = strokes.map((points) => points.map(([x, y]) => {
    const [right, down] = [(x + slant * y) * stretch, y];
    return [right * cos - down * sin, right * sin + down * cos];
  }));
  const all = moved.flat();
  const bound = (axis, of) => all.reduce((most, point) => of(most, point[axis]), all[0][axis]);
  const [left, right, top, bottom] = [bound(0, Math.min), bound(0, Math.max), bound(1, Math.min), bound(1, Math.max)];
  const [width, height] = [right - left, bottom - top];
  const tall = (CELLS - pen) / Math.max(height, width / 3, 1e-6);
  const wide = Math.min(tall, (WIDEST - pen) / Math.max(width, 1e-6));
  const place = ([x, y]) => [
    (CELLS / 2 + (x - (left + right) / 2) * wide) * FINE,
    (CELLS / 2 + (y - (top + bottom) / 2) * tall) * FINE,
  ];
  picture.clearRect(0, 0, hidden.width, hidden.height);
  picture.lineWidth = pen * FINE;
  trace(picture, moved.map((points) => points.map(place)));
  return counted(picture.getImageData(0, 0, hidden.width, hidden.height).data);
}

/** How much ink each of 8 × 8 cells has, from 0 to 16. */
function counted(pixels) {
  const row = new Uint8Array(CELLS * CELLS);
  for (let cell = 0; cell < row.length; cell++) {
    const [top, left] = [Math.floor(cell / CELLS) * FINE, (cell % CELLS) * FINE];
    let ink = 0;
    for (let y = top; y < top + FINE; y++) {
      for (let x = left; x < left + FINE; x++) ink += pixels[4 * (y * hidden.width + x) + 3];
    }
    row[cell] = Math.round((16 * ink) / (255 * FINE * FINE));
  }
  return row;
}

/** Smooth round lines through the points. */
export function trace(context, strokes) {
  context.lineCap = context.lineJoin = 'round';
  for (const points of strokes) {
    context.beginPath();
    context.moveTo(...points[0]);
    for (let i = 1; i < points.length - 1; i++) {
      const [[x, y], [toX, toY]] = [points[i], points[i + 1]];
      context.quadraticCurveTo(x, y, (x + toX) / 2, (y + toY) / 2);
    }
    context.lineTo(...points.at(-1));
    context.stroke();
  }
}

/** The drawing as others might have drawn it: `count` rows, each turned, slanted and stretched a little. */
export function variants(strokes, count, random) {
  const rows = [rowOf(strokes)];
  const around = (most) => (2 * random() - 1) * most;
  while (rows.length < count) {
    rows.push(rowOf(strokes, { turn: around(0.15), slant: around(0.2), stretch: 1 + around(0.2), pen: PEN + around(0.35) }));
  }
  return rows;
}

/** A canvas to draw on, by mouse, pen or finger. */
export class Pad {
  constructor(canvas, changed) {
    this.strokes = [];
    this._canvas = canvas;
    this._changed = changed;
    canvas.addEventListener('pointerdown', (event) => this._start(event));
    canvas.addEventListener('pointermove', (event) => this._move(event));
    for (const kind of ['pointerup', 'pointercancel']) canvas.addEventListener(kind, () => { this._pointer = undefined; });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.strokes = [];
    this._pointer = undefined;
    this.draw();
    this._changed();
  }

  /** Show strokes that were drawn before. */
  show(strokes) {
    this.strokes = strokes;
    this.draw();
    this._changed();
  }

  draw() {
    const { context, width } = sized(this._canvas);
    context.clearRect(0, 0, width, width);
    context.strokeStyle = getComputedStyle(this._canvas).color;
    context.lineWidth = width / 13;
    trace(context, this.strokes.map((points) => points.map(([x, y]) => [x * width, y * width])));
  }

  _start(event) {
    if (event.button !== 0 || this._pointer !== undefined) return;
    event.preventDefault();
    this._canvas.setPointerCapture(event.pointerId);
    this._pointer = event.pointerId;
    this.strokes = [...this.strokes, [this._at(event)]];
    this.draw();
    this._changed();
  }

  _move(event) {
    if (event.pointerId !== this._pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    this.strokes.at(-1).push(...(events.length ? events : [event]).map((each) => this._at(each)));
    this.draw();
    this._changed();
  }

  _at({ clientX, clientY }) {
    const { left, top, width, height } = this._canvas.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / height];
  }
}

/** A canvas's context in units of CSS pixels, its picture as sharp as the screen. */
export function sized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { context, width, height };
}
