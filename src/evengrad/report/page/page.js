"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const mix = (a, b, t) => a.map((v, i) => Math.round(v + (b[i] - v) * t));
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

  const floats = (text) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    const view = new DataView(bytes.buffer), out = new Float32Array(raw.length / 4);
    for (let i = 0; i < out.length; i++) out[i] = view.getFloat32(4 * i, true);
    return out;
  };
  const number = (x) => {
    if (x === 0) return "0";
    const size = Math.abs(x);
    const text = size >= 1e-3 && size < 1e5 ? String(Number(x.toPrecision(3))) : x.toExponential(1).replace(".0e", "e").replace("e+", "e");
    return text.replace(/^-/, "−");
  };
  const percent = (x) => (x > 0 && x < 0.005 ? "<1%" : x < 1 && x >= 0.995 ? ">99%" : `${(100 * x).toFixed(0)}%`);
  const say = (plane, x) => {
    if (Number.isNaN(x)) return "not seen";
    if (!Number.isFinite(x)) return "not finite";
    if (plane.scale === "fraction") return percent(x) + plane.unit;
    return x === 0 ? "exactly zero" : number(x) + plane.unit;
  };

  const palette = () => ({ mid: rgb(css("--mid")), cold: rgb(css("--cold")), cold2: rgb(css("--cold2")), warm: rgb(css("--warm")), warm2: rgb(css("--warm2")),
    zero: rgb(css("--zero")), nan: rgb(css("--nan")), card: rgb(css("--card")) });
  const ramp = (low, middle, high, t) => (t < 0.5 ? mix(low, middle, 2 * t) : mix(middle, high, 2 * t - 1));
  const colour = (plane, x, p) => {
    if (Number.isNaN(x)) return p.card;
    if (!Number.isFinite(x)) return p.nan;
    if (plane.scale === "fraction") return ramp(p.mid, p.warm, p.warm2, clamp(x, 0, 1));
    if (x === 0) return p.zero;
    const d = Math.log10(x) - plane.centre, t = Math.sqrt(clamp(Math.abs(d) / plane.reach, 0, 1));
    return d < 0 ? ramp(p.mid, p.cold, p.cold2, t) : ramp(p.mid, p.warm, p.warm2, t);
  };

  const node = (name, attributes, ...children) => {
    const made = name[0] === "+" ? document.createElementNS(SVG, name.slice(1)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  const tablist = (root, pick) => {
    if (!root) return () => {};
    const buttons = [...root.querySelectorAll("button")];
    const select = (key, focus) => buttons.forEach((b) => {
      const on = b.dataset.key === key;
      b.setAttribute("aria-selected", on);
      b.tabIndex = on ? 0 : -1;
      if (on && focus) b.focus();
    });
    const choose = (button, focus) => { select(button.dataset.key, focus); pick(button.dataset.key); };
    buttons.forEach((b, i) => {
      b.addEventListener("click", () => choose(b, false));
      b.addEventListener("keydown", (e) => {
        const move = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
        if (move) { e.preventDefault(); choose(buttons[(i + move + buttons.length) % buttons.length], true); }
      });
    });
    return select;
  };

  const ticks = (low, high) => {
    const raw = (high - low) / 3, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const out = [];
    for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) out.push(Math.abs(t) < step * 1e-9 ? 0 : t);
    return out;
  };
  const decadeTicks = (low, high) => {
    const step = Math.max(1, Math.ceil((high - low) / 5)), out = [];
    for (let t = Math.ceil(low); t <= high; t += step) out.push(t);
    return out;
  };

  /* lines: [{name, steps, values}] with null where a value is not finite; on a log axis 0 is a mark at the floor. */
  const plot = (root, lines, { log = false, fraction = false } = {}) => {
    const width = Math.max(240, root.clientWidth), height = 230, left = 46, right = 6, top = 10, bottom = 24;
    const f = log ? Math.log10 : (x) => x;
    const seen = lines.flatMap((l) => l.values.filter((v) => v !== null && (!log || v > 0))).map(f);
    let low = Math.min(...seen), high = Math.max(...seen);
    if (!seen.length) [low, high] = [0, 1];
    if (fraction) [low, high] = [0, 1];
    else if (log) { low = Math.floor(low); high = Math.max(low + 1, Math.ceil(high)); }
    else if (high - low < 1e-12 * Math.max(1, Math.abs(high))) { const pad = Math.abs(high) * 0.1 || 1; low -= pad; high += pad; }
    else { const pad = 0.06 * (high - low); high += pad; low = low >= 0 && low - pad < 0 ? 0 : low - pad; }
    const first = Math.min(...lines.map((l) => l.steps[0])), last = Math.max(...lines.map((l) => l.steps[l.steps.length - 1]), first + 1);
    const x = (s) => left + ((s - first) / (last - first)) * (width - left - right);
    const y = (v) => top + (1 - (f(v) - low) / (high - low)) * (height - top - bottom);
    const floor = height - bottom, svg = node("+svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": lines.map((l) => l.name).join(", ") + " over the steps" });
    for (const t of log ? decadeTicks(low, high) : ticks(low, high)) {
      const at = top + (1 - (t - low) / (high - low)) * (floor - top);
      svg.append(node("+line", { x1: left, x2: width - right, y1: at, y2: at, class: "grid" }));
      svg.append(node("+text", { x: left - 7, y: at + 4, "text-anchor": "end" }, fraction ? percent(t) : log ? number(10 ** t) : number(Number(t.toPrecision(6)))));
    }
    svg.append(node("+text", { x: left, y: height - 6 }, `step ${first.toLocaleString("en")}`));
    svg.append(node("+text", { x: width - right, y: height - 6, "text-anchor": "end" }, last.toLocaleString("en")));
    lines.forEach((line, n) => {
      let path = "", pen = false;
      line.steps.forEach((s, i) => {
        const v = line.values[i];
        if (v === null || (log && v === 0)) {
          pen = false;
          svg.append(node("+rect", { x: x(s) - 2, y: v === null ? top - 4 : floor - 5, width: 4, height: 5, class: v === null ? "mark-nan" : "mark-zero" }));
          return;
        }
        path += `${pen ? "L" : "M"}${x(s).toFixed(1)} ${y(v).toFixed(1)}`;
        pen = true;
      });
      svg.append(node("+path", { d: path || "M0 0", class: n ? "path second" : "path" }));
    });
    root.replaceChildren(svg);
  };

  const words = (lines) => lines.flatMap((l, n) => {
    const text = (v) => (v === null ? "not finite" : number(v));
    return [node("i", { class: n ? "swatch second" : "swatch" }), `${l.name} ${text(l.values[0])} → ${text(l.values[l.values.length - 1])}`];
  });

  const start = (root) => {
    const block = root.querySelector("script.data");
    if (!block) return;
    const data = JSON.parse(block.textContent), side = root.querySelector(".side"), canvas = root.querySelector("canvas.heat");
    const planes = (data.planes || []).map((p) => ({ ...p, values: floats(p.values) }));
    const L = (data.layers || []).length, S = (data.steps || []).length;
    let plane = planes[0], at = { step: S - 1, layer: 0 }, layer = 0, curve = data.curves.length ? data.curves[0].name : "layer", hovering = false;

    const showCurve = side && tablist(side.querySelector(".curves"), (key) => { curve = key; drawSide(); });
    const drawSide = () => {
      if (!side) return;
      const holder = side.querySelector(".plot"), said = side.querySelector(".said");
      if (curve !== "layer") {
        const found = data.curves.find((c) => c.name === curve);
        plot(holder, found.lines, { log: curve === "grad norm" });
        said.replaceChildren(...words(found.lines));
        return;
      }
      const values = data.steps.map((_, s) => plane.values[s * L + layer]);
      const kept = data.steps.map((s, i) => [s, values[i]]).filter(([, v]) => !Number.isNaN(v));
      const line = { name: data.layers[layer], steps: kept.map(([s]) => s), values: kept.map(([, v]) => (Number.isFinite(v) ? v : null)) };
      said.replaceChildren(node("b", {}, data.layers[layer]), `: ${plane.key}`);
      if (!kept.length) { holder.replaceChildren(); said.append(", not seen"); return; }
      plot(holder, [line], { log: plane.scale === "log", fraction: plane.scale === "fraction" });
      said.append(`, ${say(plane, values[0])} at first, ${say(plane, values[values.length - 1])} at last`);
    };
    let wide = 0;
    const refit = () => { if (root.clientWidth !== wide) { wide = root.clientWidth; drawSide(); drawHeat(); } };
    addEventListener("resize", refit);

    const drawHeat = () => {
      if (!canvas) return;
      const p = palette(), image = new ImageData(S, L), ratio = Math.max(1, window.devicePixelRatio || 1);
      for (let s = 0; s < S; s++) for (let l = 0; l < L; l++) {
        const [r, g, b] = colour(plane, plane.values[s * L + l], p), k = 4 * ((L - 1 - l) * S + s);
        image.data.set([r, g, b, 255], k);
      }
      const small = document.createElement("canvas");
      small.width = S; small.height = L;
      small.getContext("2d").putImageData(image, 0, 0);
      const height = clamp(L * 16, 160, 320);
      canvas.width = Math.round(canvas.clientWidth * ratio); canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
      const g = canvas.getContext("2d"), w = canvas.width / S, h = canvas.height / L;
      g.imageSmoothingEnabled = false;
      g.drawImage(small, 0, 0, canvas.width, canvas.height);
      g.lineWidth = 1.5 * ratio;
      g.strokeStyle = css("--ink");
      if (curve === "layer" || hovering) {
        const row = curve === "layer" ? layer : at.layer;
        g.strokeRect(0.75 * ratio, canvas.height - (row + 1) * h, canvas.width - 1.5 * ratio, Math.max(h, 2 * ratio));
      }
      if (hovering) {
        const cw = Math.max(w, 5 * ratio), ch = Math.max(h, 5 * ratio), cx = (at.step + 0.5) * w - cw / 2, cy = canvas.height - (at.layer + 0.5) * h - ch / 2;
        g.strokeStyle = css("--card"); g.lineWidth = 4 * ratio; g.strokeRect(cx, cy, cw, ch);
        g.strokeStyle = css("--ink"); g.lineWidth = 1.5 * ratio; g.strokeRect(cx, cy, cw, ch);
      }
    };
    const key = () => {
      const holder = root.querySelector(".key");
      if (!holder) return;
      const item = (name, text) => node("span", {}, node("i", { class: name }), text);
      const bar = node("i", { class: `ramp ${plane.scale}` });
      const [low, high] = plane.scale === "log" ? [number(10 ** (plane.centre - plane.reach)), number(10 ** (plane.centre + plane.reach))] : ["0%", "100%"];
      const parts = [node("span", {}, `${low} ${plane.low}`, bar, `${high} ${plane.high}`)];
      if (plane.scale === "log" && plane.values.includes(0)) parts.push(item("zero", "exactly zero"));
      if (plane.values.some((v) => v === Infinity)) parts.push(item("nan", "not finite"));
      holder.replaceChildren(...parts);
    };
    const readout = () => {
      const value = say(plane, plane.values[at.step * L + at.layer]);
      root.querySelector(".read").replaceChildren(`step ${data.steps[at.step].toLocaleString("en")} · ${data.layers[at.layer]} · `, node("b", {}, value));
    };
    const pin = () => { layer = at.layer; curve = "layer"; showCurve("layer"); drawSide(); drawHeat(); };

    if (canvas) {
      tablist(root.querySelector(".planes"), (name) => { plane = planes.find((p) => p.key === name); key(); drawHeat(); drawSide(); });
      const find = (e) => {
        const box = canvas.getBoundingClientRect();
        at = { step: clamp(Math.floor(((e.clientX - box.left) / box.width) * S), 0, S - 1), layer: clamp(L - 1 - Math.floor(((e.clientY - box.top) / box.height) * L), 0, L - 1) };
        hovering = true;
      };
      canvas.addEventListener("pointermove", (e) => { find(e); readout(); drawHeat(); });
      canvas.addEventListener("pointerleave", () => { hovering = document.activeElement === canvas && canvas.matches(":focus-visible"); drawHeat(); });
      canvas.addEventListener("click", (e) => { find(e); readout(); pin(); });
      canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) { hovering = true; readout(); drawHeat(); } });
      canvas.addEventListener("blur", () => { hovering = false; drawHeat(); });
      canvas.addEventListener("keydown", (e) => {
        const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1], PageUp: [0, 10], PageDown: [0, -10], Home: [-S, 0], End: [S, 0] }[e.key];
        if (move) { at = { step: clamp(at.step + move[0], 0, S - 1), layer: clamp(at.layer + move[1], 0, L - 1) }; hovering = true; readout(); drawHeat(); }
        else if (e.key === "Enter" || e.key === " ") pin();
        else return;
        e.preventDefault();
      });
      key();
    }
    refit();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawHeat);
  };
  document.querySelectorAll(".report").forEach(start);
})();
