// A small live plot: some lines over the last minute, in the colours of the page.

const SECONDS = 60;

export class Plot {
  #canvas;
  #series;
  #points = [];

  /** `series` is a list of `{ name, colour }`, the colour being the name of a style property. */
  constructor(canvas, series) {
    this.#canvas = canvas;
    this.#series = series;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear() {
    this.#points = [];
    this.draw();
  }

  /** One value for each series; `null` leaves a gap. */
  add(values) {
    this.#points = [...this.#points, values].slice(-SECONDS);
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = devicePixelRatio || 1;
    [this.#canvas.width, this.#canvas.height] = [width * scale, height * scale];
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(this.#canvas);
    const colour = (name) => style.getPropertyValue(name);
    const [left, top, bottom] = [52, 8, height - 18];
    const most = ceiling(Math.max(0, ...this.#points.flat().filter((value) => value !== null)));
    const y = (value) => bottom - (value / most) * (bottom - top);
    const x = (index) => width - 6 - ((this.#points.length - 1 - index) * (width - left - 6)) / (SECONDS - 1);

    context.font = `11px ${style.fontFamily}`;
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      context.strokeStyle = colour("--line");
      context.beginPath();
      context.moveTo(left, Math.round(y(most * share)) + 0.5);
      context.lineTo(width, Math.round(y(most * share)) + 0.5);
      context.stroke();
      context.fillStyle = colour("--muted");
      context.textAlign = "right";
      context.fillText(label(most * share), left - 8, y(most * share));
    }
    context.textBaseline = "alphabetic";
    context.textAlign = "left";
    context.fillText("1 min ago", left, height - 3);
    context.textAlign = "right";
    context.fillText("now", width, height - 3);

    context.lineWidth = 2;
    context.lineJoin = "round";
    this.#series.forEach((series, number) => {
      context.strokeStyle = colour(series.colour);
      context.beginPath();
      let drawing = false;
      this.#points.forEach((values, index) => {
        const value = values[number];
        if (value !== null) {
          context[drawing ? "lineTo" : "moveTo"](x(index), y(value));
        }
        drawing = value !== null;
      });
      context.stroke();
    });
  }
}

/** The next round number. */
function ceiling(value) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
  return steps.find((step) => step >= value) ?? value;
}

function label(value) {
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ms`;
}
