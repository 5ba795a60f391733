// The map of the pool: points on a canvas, with pan, zoom, a picture on hover, a click into Label Studio, and a lasso.
// 100,000 points are drawn into one image in memory, which takes a few milliseconds; an element per point would not do.
const root = document.querySelector("[data-map]");
const GRID = 128; // cells per side, in which the point under the pointer is looked for
const NEAR = 9; // pixels between the pointer and a point that it means
const MOST_LISTED = 20;

function columns(buffer) {
  const n = new Uint32Array(buffer, 0, 1)[0];
  let at = 8;
  const next = (Kind) => {
    const column = new Kind(buffer, at, n);
    at += column.byteLength;
    return column;
  };
  return {
    n, ids: next(Float64Array), x: next(Float32Array), y: next(Float32Array),
    classes: next(Int16Array), states: next(Uint8Array), shares: next(Uint8Array),
  };
}

// Both axes get the same scale, so that distances on the map mean the same in all directions.
function normalised(points) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < points.n; i++) {
    left = Math.min(left, points.x[i]); right = Math.max(right, points.x[i]);
    low = Math.min(low, points.y[i]); high = Math.max(high, points.y[i]);
  }
  const span = Math.max(right - left, high - low) || 1;
  const x = points.x.map((value) => 0.5 + (value - (left + right) / 2) / span);
  const y = points.y.map((value) => 0.5 - (value - (low + high) / 2) / span);
  return { ...points, x, y };
}

const cellOf = (points, i) =>
  Math.min(GRID - 1, Math.floor(points.y[i] * GRID)) * GRID + Math.min(GRID - 1, Math.floor(points.x[i] * GRID));

function grid(points) {
  const starts = new Uint32Array(GRID * GRID + 1), rows = new Uint32Array(points.n);
  for (let i = 0; i < points.n; i++) starts[cellOf(points, i) + 1]++;
  for (let cell = 0; cell < GRID * GRID; cell++) starts[cell + 1] += starts[cell];
  const free = starts.slice();
  for (let i = 0; i < points.n; i++) rows[free[cellOf(points, i)]++] = i;
  return { starts, rows };
}

function rgb(colour) {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}

const pixel = (colour, alpha = 255) => ((alpha << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0]) >>> 0;

function ramp() {
  const low = [120, 150, 190], high = [215, 60, 0];
  return Array.from({ length: 255 }, (_, share) => low.map((part, k) => Math.round(part + (high[k] - part) * share / 254)));
}

function inside(polygon, x, y) {
  let odd = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [ax, ay] = polygon[i], [bx, by] = polygon[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

class PoolMap {
  constructor(element) {
    this.element = element;
    this.about = JSON.parse(element.querySelector("script[type='application/json']").textContent);
    this.canvas = element.querySelector("canvas.points");
    this.overlay = element.querySelector("canvas.lasso");
    this.tip = element.querySelector(".tip");
    this.camera = { x: 0.5, y: 0.5, zoom: 1 };
    this.mode = "move";
    this.colouring = "state";
    this.selected = new Uint8Array(0);
    this.listen();
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
    this.load("points");
  }

  async load(kind) {
    const answer = await fetch(`/projects/${this.element.dataset.project}/pool/${kind}${location.search}`);
    if (!answer.ok) {
      this.say("The map could not be loaded. Reload the page.");
      return;
    }
    this.kind = kind;
    this.points = normalised(columns(await answer.arrayBuffer()));
    this.grid = grid(this.points);
    this.select(() => false);
    this.reset();
    this.element.dataset.loaded = kind;
  }

  // Rare states are drawn last, so that they lie on top.
  order() {
    const counts = new Uint32Array(256);
    for (let i = 0; i < this.points.n; i++) counts[this.points.states[i]]++;
    const states = [...counts.keys()].filter((state) => counts[state]).sort((a, b) => counts[b] - counts[a]);
    const order = new Uint32Array(this.points.n);
    let at = 0;
    for (const state of states) for (let i = 0; i < this.points.n; i++) if (this.points.states[i] === state) order[at++] = i;
    return order;
  }

  colours() {
    const { states, classes, shares, n } = this.points;
    const other = rgb(this.about.other), scale = ramp();
    const ofStates = this.about.states.map((state) => rgb(state.colour));
    const ofClasses = this.about.classes.map((entry) => rgb(entry.colour));
    const choose = {
      state: (i) => ofStates[states[i]] ?? other,
      class: (i) => ofClasses[classes[i]] ?? other,
      share: (i) => scale[shares[i]] ?? other,
    }[this.colouring];
    const any = this.selected.includes(1);
    const drawn = new Uint32Array(n);
    for (let i = 0; i < n; i++) drawn[i] = pixel(choose(i), any && !this.selected[i] ? 50 : 255);
    return drawn;
  }

  recolour() {
    if (!this.points) return;
    this.drawn = { order: this.order(), colours: this.colours() };
    this.legend();
    this.redraw();
  }

  redraw() {
    if (this.drawn) requestAnimationFrame(() => this.paint());
  }

  paint() {
    const ratio = devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    for (const canvas of [this.canvas, this.overlay]) if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = this.canvas.getContext("2d"), image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), { order, colours } = this.drawn, { x, y, n } = this.points;
    const size = Math.round(ratio * Math.min(8, (n > 20000 ? 2 : n > 2000 ? 3 : 5) * Math.sqrt(Math.max(1, this.camera.zoom / 2))));
    const scale = this.scale(width, height), [shiftX, shiftY] = [width / 2 - this.camera.x * scale, height / 2 - this.camera.y * scale];
    for (const i of order) {
      const left = Math.round(x[i] * scale + shiftX - size / 2), top = Math.round(y[i] * scale + shiftY - size / 2);
      if (left < 0 || top < 0 || left + size > width || top + size > height) continue;
      for (let row = top; row < top + size; row++) pixels.fill(colours[i], row * width + left, row * width + left + size);
    }
    context.putImageData(image, 0, 0);
  }

  scale(width, height) {
    return 0.94 * Math.min(width, height) * this.camera.zoom;
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect(), scale = this.scale(box.width, box.height);
    return [this.camera.x + (event.clientX - box.left - box.width / 2) / scale, this.camera.y + (event.clientY - box.top - box.height / 2) / scale];
  }

  near(event) {
    const box = this.canvas.getBoundingClientRect(), reach = NEAR / this.scale(box.width, box.height);
    const [px, py] = this.place(event), { x, y } = this.points, { starts, rows } = this.grid;
    const clip = (value) => Math.min(GRID - 1, Math.max(0, Math.floor(value * GRID)));
    let best = -1, least = reach * reach;
    for (let cy = clip(py - reach); cy <= clip(py + reach); cy++) {
      for (let cell = cy * GRID + clip(px - reach); cell <= cy * GRID + clip(px + reach); cell++) {
        for (let at = starts[cell]; at < starts[cell + 1]; at++) {
          const i = rows[at], distance = (x[i] - px) ** 2 + (y[i] - py) ** 2;
          if (distance < least) [best, least] = [i, distance];
        }
      }
    }
    return best;
  }

  listen() {
    const { canvas, element } = this;
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this.place(event)); }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    canvas.addEventListener("keydown", (event) => this.key(event));
    element.querySelector("[name=colouring]").addEventListener("change", (event) => { this.colouring = event.target.value; this.recolour(); });
    element.querySelector("[name=kind]").addEventListener("change", (event) => this.load(event.target.value));
    for (const button of element.querySelectorAll("[data-do]")) button.addEventListener("click", () => this.press_button(button.dataset.do));
  }

  press_button(name) {
    const chosen = (field) => this.element.querySelector(`[name=${field}]`).value;
    ({
      move: () => this.setMode("move"), lasso: () => this.setMode("lasso"),
      closer: () => this.zoom(1.5), farther: () => this.zoom(1 / 1.5), whole: () => this.reset(),
      clear: () => this.select(() => false),
      select: () => {
        const state = chosen("by_state"), label = chosen("by_class");
        this.select((i) => (state === "" || this.points.states[i] === Number(state)) && (label === "" || this.points.classes[i] === Number(label)));
      },
    })[name]();
  }

  setMode(mode) {
    this.mode = mode;
    for (const button of this.element.querySelectorAll("[data-do=move], [data-do=lasso]")) button.setAttribute("aria-pressed", button.dataset.do === mode);
  }

  zoom(factor, around = [this.camera.x, this.camera.y]) {
    const zoom = Math.min(400, Math.max(0.5, this.camera.zoom * factor)), share = this.camera.zoom / zoom;
    this.camera = { x: around[0] + (this.camera.x - around[0]) * share, y: around[1] + (this.camera.y - around[1]) * share, zoom };
    this.redraw();
  }

  reset() {
    this.camera = { x: 0.5, y: 0.5, zoom: 1 };
    this.redraw();
  }

  key(event) {
    const step = 0.1 / this.camera.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) { this.camera.x += moves[event.key][0]; this.camera.y += moves[event.key][1]; this.redraw(); }
    else if (event.key === "+" || event.key === "=") this.zoom(1.25);
    else if (event.key === "-") this.zoom(0.8);
    else if (event.key === "0") this.reset();
    else if (event.key === "Escape") this.select(() => false);
    else return;
    event.preventDefault();
  }

  press(event) {
    if (!this.points || event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.held = { x: event.clientX, y: event.clientY, far: false, lasso: this.mode === "lasso" || event.shiftKey ? [this.place(event)] : null };
  }

  move(event) {
    if (!this.points) return;
    if (!this.held) { this.hover(event); return; }
    const [dx, dy] = [event.clientX - this.held.x, event.clientY - this.held.y];
    this.held.far ||= Math.hypot(dx, dy) > 4;
    this.tip.hidden = true;
    if (this.held.lasso) {
      this.held.lasso.push(this.place(event));
      this.trace(this.held.lasso);
    } else if (this.held.far) {
      const box = this.canvas.getBoundingClientRect(), scale = this.scale(box.width, box.height);
      this.camera.x -= dx / scale;
      this.camera.y -= dy / scale;
      [this.held.x, this.held.y] = [event.clientX, event.clientY];
      this.redraw();
    }
  }

  release(event) {
    const held = this.held;
    this.held = null;
    if (!held || !this.points) return;
    if (held.lasso && held.far) {
      const { x, y } = this.points;
      this.select((i) => inside(held.lasso, x[i], y[i]));
      this.trace([]);
    } else if (!held.far) {
      const i = this.near(event);
      if (i >= 0) window.open(this.about.task + this.points.ids[i], "_blank", "noopener");
    }
  }

  trace(line) {
    const { width, height } = this.overlay, context = this.overlay.getContext("2d"), scale = this.scale(width, height);
    context.clearRect(0, 0, width, height);
    context.beginPath();
    for (const [x, y] of line) context.lineTo((x - this.camera.x) * scale + width / 2, (y - this.camera.y) * scale + height / 2);
    context.strokeStyle = getComputedStyle(this.overlay).color;
    context.lineWidth = 2 * (devicePixelRatio || 1);
    context.stroke();
  }

  describe(i) {
    const { ids, states, classes, shares } = this.points;
    const label = this.about.classes[classes[i]]?.name, share = shares[i] === 255 ? "" : `${Math.round(shares[i] / 2.54)}%`;
    const measure = this.kind === "boxes" ? "confidence" : "uncertainty";
    return [`Task ${ids[i]}`, this.about.states[states[i]]?.name, label ?? "no box", share && `${measure} ${share}`].filter(Boolean).join(" · ");
  }

  hover(event) {
    const i = this.near(event);
    this.tip.hidden = i < 0;
    if (i < 0) { this.hovered = i; return; }
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left;
    this.tip.style.left = `${Math.min(x + 14, box.width - 190)}px`;
    this.tip.style.top = `${event.clientY - box.top + 14}px`;
    if (i === this.hovered) return;
    this.hovered = i;
    this.tip.querySelector("span").textContent = this.describe(i);
    const image = this.tip.querySelector("img");
    image.hidden = true;
    clearTimeout(this.waiting); // no picture for each point on the way of the pointer
    this.waiting = setTimeout(() => {
      image.onload = () => { image.hidden = false; };
      image.src = this.about.picture.replace("TASK", this.points.ids[i]);
    }, 80);
  }

  select(chosen) {
    this.selected = new Uint8Array(this.points.n);
    const ids = new Set();
    for (let i = 0; i < this.points.n; i++) if (chosen(i)) { this.selected[i] = 1; ids.add(this.points.ids[i]); }
    for (const field of this.element.querySelectorAll("input[name=tasks]")) field.value = [...ids].join(",");
    for (const button of this.element.querySelectorAll("form button")) button.disabled = !ids.size;
    this.say(ids.size ? `${ids.size} ${ids.size === 1 ? "task is" : "tasks are"} selected.` : "Nothing is selected.");
    const list = this.element.querySelector(".chosen");
    list.replaceChildren(...[...ids].slice(0, MOST_LISTED).map((id) => {
      const link = Object.assign(document.createElement("a"), { href: this.about.task + id, textContent: `Task ${id}` });
      const item = document.createElement("li");
      item.append(link);
      return item;
    }));
    this.recolour();
  }

  say(sentence) {
    this.element.querySelector(".selection").textContent = sentence;
  }

  legend() {
    const list = this.element.querySelector(".legend");
    const byShare = [{ name: this.kind === "boxes" ? "unsure" : "certain", colour: "rgb(120,150,190)" }, { name: this.kind === "boxes" ? "confident" : "uncertain", colour: "rgb(215,60,0)" }];
    const entries = { state: this.about.states, class: this.about.classes.slice(0, 24), share: byShare }[this.colouring];
    list.replaceChildren(...entries.map(({ name, colour }) => {
      const item = document.createElement("li"), swatch = document.createElement("span"), text = document.createElement("bdi");
      swatch.className = "swatch";
      swatch.style.background = colour;
      text.textContent = name;
      item.append(swatch, text);
      return item;
    }));
  }
}

if (root) new PoolMap(root);
