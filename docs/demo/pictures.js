// The pictures of what the network does: losses, neurons, small drawings.

import { sized } from './drawing.js';

const TOP = 8; // losses, on a logarithmic axis
const BOTTOM = 0.002;

/** The colours of the page, which follow the light. */
function colours(canvas) {
  const style = getComputedStyle(canvas);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

/** Losses of all steps so far, each faint, their running mean strong; `marks` say what began when. */
export class Curve {
  constructor(canvas) {
    this._canvas = canvas;
    this.clear();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.losses = [];
    this.means = [];
    this.marks = [];
  }

  mark(text) {
    this.marks.push({ at: this.losses.length, text });
  }

  add(losses) {
    for (const loss of losses) {
      const { at } = this.marks.at(-1) ?? { at: 0 };
      const before = this.losses.length > at ? this.means.at(-1) : loss;
      this.losses.push(loss);
      this.means.push(before + 0.12 * (loss - before));
    }
    this.draw();
  }

  draw() {
    const { context, width, height } = sized(this._canvas);
    const colour = colours(this._canvas);
    const [left, right, top, bottom] = [34, width - 8, 20, height - 8];
    const count = Math.max(this.losses.length, 200);
    const x = (step) => left + ((right - left) * step) / count;
    const height01 = (loss) => Math.log(Math.min(Math.max(loss, BOTTOM), TOP) / BOTTOM) / Math.log(TOP / BOTTOM);
    const y = (loss) => bottom - (bottom - top) * height01(loss);
    context.clearRect(0, 0, width, height);
    context.font = '11px system-ui, sans-serif';
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    context.lineWidth = 1;
    for (const loss of [1, 0.1, 0.01]) {
      context.strokeStyle = colour('line');
      context.beginPath();
      context.moveTo(left, y(loss));
      context.lineTo(right, y(loss));
      context.stroke();
      context.fillStyle = colour('faint');
      context.fillText(String(loss), left - 6, y(loss));
    }
    this._marks(context, colour, x, top, bottom, right);
    if (!this.losses.length) {
      context.textAlign = 'center';
      context.fillText('the loss of each step comes here', (left + right) / 2, y(0.3));
      return;
    }
    const step = Math.max(1, Math.floor(count / (right - left)));
    context.fillStyle = colour('accent');
    context.globalAlpha = 0.3;
    for (let i = 0; i < this.losses.length; i += step) context.fillRect(x(i) - 0.8, y(this.losses[i]) - 0.8, 1.6, 1.6);
    context.globalAlpha = 1;
    this._means(context, colour, x, y, step);
  }

  _marks(context, colour, x, top, bottom, right) {
    context.textAlign = 'left';
    let free = -Infinity;
    for (const { at, text } of this.marks) {
      context.strokeStyle = colour('mark');
      context.setLineDash([2, 3]);
      context.beginPath();
      context.moveTo(x(at), top);
      context.lineTo(x(at), bottom);
      context.stroke();
      context.setLineDash([]);
      const begin = Math.max(Math.min(x(at), right - context.measureText(text).width), free);
      if (begin + context.measureText(text).width > right + 1) continue;
      context.fillStyle = colour('mark');
      context.fillText(text, begin, 9);
      free = begin + context.measureText(text).width + 8;
    }
  }

  _means(context, colour, x, y, step) {
    context.strokeStyle = colour('accent');
    context.lineWidth = 2.2;
    context.lineJoin = 'round';
    context.beginPath();
    const begins = new Set(this.marks.map(({ at }) => at));
    let fresh = true;
    this.means.forEach((mean, i) => {
      fresh ||= begins.has(i);
      if (i % step && !fresh && i !== this.means.length - 1) return;
      if (fresh) context.moveTo(x(i), y(mean));
      else context.lineTo(x(i), y(mean));
      fresh = false;
    });
    context.stroke();
    context.beginPath();
    context.arc(x(this.means.length - 1), y(this.means.at(-1)), 3.5, 0, 2 * Math.PI);
    context.fillStyle = colour('accent');
    context.fill();
  }
}

/** Each hidden neuron's weights as 8 × 8 pixels; framed by how much the row excites it. */
export function drawNeurons(canvas, { weight, bias, count }, row) {
  const { context, width, height } = sized(canvas);
  const colour = colours(canvas);
  const gap = 9;
  const { across, side } = largest(count, width - 4, height - 4, gap);
  const spread = (width - 4 - side * across) / (across - 1);
  const most = Math.sqrt(weight.reduce((sum, value) => sum + value * value, 0) / weight.length) * 2.5;
  const excited = row === undefined ? undefined : excitements(weight, bias, count, row);
  const strongest = excited === undefined ? 1 : Math.max(...excited, 1e-6);
  context.clearRect(0, 0, width, height);
  for (let unit = 0; unit < count; unit++) {
    const [left, top] = [2 + (unit % across) * (side + spread), 2 + Math.floor(unit / across) * (side + gap)];
    context.fillStyle = colour('cell');
    context.fillRect(left, top, side, side);
    for (let i = 0; i < 64; i++) {
      const value = weight[unit * 64 + i];
      context.fillStyle = colour(value > 0 ? 'plus' : 'minus');
      context.globalAlpha = Math.min(Math.abs(value) / most, 1);
      context.fillRect(left + ((i % 8) * side) / 8, top + (Math.floor(i / 8) * side) / 8, side / 8 + 0.2, side / 8 + 0.2);
    }
    context.globalAlpha = 1;
    if (excited?.[unit] > 0) {
      context.globalAlpha = Math.min(1, excited[unit] / strongest);
      context.strokeStyle = colour('text');
      context.lineWidth = 2;
      context.strokeRect(left - 1, top - 1, side + 2, side + 2);
      context.globalAlpha = 1;
    }
  }
}

/** How many squares beside one another, all rows full, make them as large as the space allows. */
function largest(count, width, height, gap) {
  let best = { across: 2, side: 0 };
  for (let across = 2; across <= count; across++) {
    if (count % across) continue;
    const down = count / across;
    const side = Math.min((width - gap * (across - 1)) / across, (height - gap * (down - 1)) / down);
    if (side > best.side) best = { across, side };
  }
  return best;
}

/** What Relu lets through of each neuron. */
function excitements(weight, bias, count, row) {
  return Float32Array.from({ length: count }, (_, unit) => {
    let sum = bias[unit];
    for (let i = 0; i < 64; i++) sum += (weight[unit * 64 + i] * row[i]) / 16;
    return Math.max(sum, 0);
  });
}

/** A row of 64 pixels, one canvas pixel each, in the colour of the canvas's text. */
export function drawRow(canvas, row) {
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, 8, 8);
  if (row === undefined) return;
  context.fillStyle = getComputedStyle(canvas).color;
  row.forEach((ink, i) => {
    context.globalAlpha = ink / 16;
    context.fillRect(i % 8, Math.floor(i / 8), 1, 1);
  });
  context.globalAlpha = 1;
}
