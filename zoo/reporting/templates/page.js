"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { names, measures, pairs, words } = data;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const byId = (id) => document.getElementById(id);
  const position = new Map(pairs.map(([a, b], index) => [a + "," + b, index]));
  const pairAt = (a, b) => position.get(Math.min(a, b) + "," + Math.max(a, b));

  /* Everything is put on the page as text, never as markup. */
  function make(tag, content, name) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    for (const item of [].concat(content ?? [])) element.append(item);
    return element;
  }
  /* What scrolls when it is wider than its room, under the line that says so then. */
  function fitted(content) {
    const wider = make("p", words.wider, "wider");
    wider.setAttribute("aria-hidden", "true");
    return make("div", [wider, content], "fit");
  }
  const isolated = (text) => make("bdi", String(text));
  const fill = (key, values) => words[key].split(/\{(\w+)\}/).map((part, i) => (i % 2 ? isolated(values[part]) : part));
  const fixed = (value, digits = 2) => {
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  };
  const at = (column, index) => (Array.isArray(column) ? column[index] : column);

  function numberOf(measure, index) {
    const value = measure.v[index];
    const low = measure.l ? measure.l[index] : null;
    const high = measure.h ? measure.h[index] : null;
    const reason = at(measure.r, index) ? measure.reasons[at(measure.r, index) - 1] : "";
    let interval = "—";
    if (low !== null && high !== null) interval = fixed(low) + (low < 0 || high < 0 ? words.to : "–") + fixed(high);
    return { value, text: value === null ? "—" : fixed(value), interval, n: at(measure.n, index) ?? null, reason };
  }

  /* --- charts --------------------------------------------------------------------------------------------- */
  const views = new Map();
  const tip = make("div", [], "tip");
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);

  function showTip(event, item, value) {
    const datum = item && item.datum;
    if (!datum || value === undefined || value === null) { tip.hidden = true; return; }
    tip.replaceChildren(...(typeof datum.key === "string" && datum.key.includes(",") ? pairTip(datum.key) : [String(value)]));
    tip.hidden = false;
    const room = document.documentElement.clientWidth + window.scrollX - tip.offsetWidth - 8;
    tip.style.left = Math.max(window.scrollX + 4, Math.min(event.pageX + 14, room)) + "px";
    const below = event.clientY + tip.offsetHeight + 24 < window.innerHeight;
    tip.style.top = (below ? event.pageY + 14 : Math.max(window.scrollY, event.pageY - tip.offsetHeight - 14)) + "px";
  }

  function pairTip(key) {
    const [a, b] = key.split(",").map(Number);
    const index = pairAt(a, b);
    const rows = measures.filter((measure) => measure.v[index] !== null).map((measure) => {
      const number = numberOf(measure, index);
      const cells = [number.text + (number.interval === "—" ? "" : " (" + number.interval + ")"), number.n === null ? "" : "n = " + number.n];
      return make("tr", [make("th", measure.title), ...cells.map((cell) => make("td", cell, "n"))]);
    });
    const title = a === b ? fill("replicas", { a: names[a] }) : [isolated(names[a]), " – ", isolated(names[b])];
    return [make("strong", title), make("table", make("tbody", rows))];
  }

  /* Colours stand in the marks as @name; names of models and other text never do. */
  function paint(spec, theme) {
    for (const layer of spec.layer) {
      for (const [key, value] of Object.entries(layer.mark)) {
        if (typeof value === "string" && value.startsWith("@")) layer.mark[key] = theme.palette[value.slice(1)];
      }
    }
    spec.config = theme.config;
  }

  async function draw(name) {
    const holder = byId("chart-" + name);
    const chart = data.charts[name];
    if (!holder || !chart) return;
    const spec = structuredClone(chart.spec);
    if (name === "pairs") fillPairs(spec);
    if (name === "layers") fillLayers(spec);
    const width = Math.max(chart.least, Math.min(chart.widest, Math.floor(holder.clientWidth)));
    const height = chart.height ?? Math.round(width * chart.aspect);
    const room = document.createElement("div");
    paint(spec, data.themes[dark.matches ? 1 : 0]);
    const result = await vegaEmbed(room, { ...spec, width, height }, {
      mode: "vega-lite", actions: false, ast: true, defaultStyle: false, hover: true,
      renderer: names.length > 30 && name === "pairs" ? "canvas" : "svg", tooltip: (_, event, item, value) => showTip(event, item, value),
    });
    if (views.has(name)) views.get(name).finalize();
    views.set(name, result);
    /* The holder is one image with a description; what the library says of each part of it is noise. */
    for (const part of room.querySelectorAll("[role], [aria-roledescription], [aria-label]")) {
      for (const attribute of ["role", "aria-roledescription", "aria-label"]) part.removeAttribute(attribute);
    }
    holder.replaceChildren(fitted(room));
    holder.dataset.drawn = "true";
    if (name === "pairs") result.view.addEventListener("click", (_, item) => item && item.datum && item.datum.key && choose(item.datum.key));
  }

  for (const holder of document.querySelectorAll(".chart")) holder.addEventListener("pointerleave", () => { tip.hidden = true; });

  async function drawAll() {
    document.documentElement.dataset.charts = dark.matches ? "dark" : "light";
    for (const name of Object.keys(data.charts)) await draw(name);
    document.documentElement.dataset.ready = "true";
  }

  function fillPairs(spec) {
    const measure = measures[Number(byId("measure").value)];
    const [low, high] = measure.domain;
    const rows = [];
    pairs.forEach(([a, b], index) => {
      const value = measure.v[index];
      let share = value === null ? 0 : (value - low) / (high - low);
      if (!measure.alike) share = 1 - share;
      const cell = { value, known: value !== null, strong: share > 0.55, label: value === null ? "—" : fixed(value) };
      rows.push({ row: names[a], column: names[b], key: a + "," + b, ...cell });
      if (a !== b) rows.push({ row: names[b], column: names[a], key: b + "," + a, ...cell });
    });
    spec.datasets.cells = rows;
    for (const layer of spec.layer) {
      if (layer.encoding.color) {
        layer.encoding.color.title = measure.title;
        layer.encoding.color.scale = { domain: measure.domain, clamp: true, reverse: !measure.alike };
      }
    }
    byId("chart-pairs").setAttribute("aria-label", words.chart_of.replace("{measure}", () => measure.title));
  }

  function fillLayers(spec) {
    const grid = data.grids[Number(byId("grid").value)];
    spec.datasets.layers = grid.cka.flatMap((values, i) => values.map((value, j) => ({
      row: grid.rows[i], column: grid.columns[j], value, known: value !== null, strong: (value ?? 0) > 0.55,
      best: i === grid.best[0] && j === grid.best[1], label: value === null ? "—" : fixed(value),
    })));
    for (const layer of spec.layer) {
      layer.encoding.x.title = names[grid.b];
      layer.encoding.y.title = names[grid.a];
    }
    const said = grid.reason
      ? fill("no_best", { reason: grid.reason })
      : fill("best", { value: grid.text, row: grid.rows[grid.best[0]] ?? "—", column: grid.columns[grid.best[1]] ?? "—", quantile: grid.quantile, p: grid.p });
    byId("grid-said").replaceChildren(...said);
  }

  /* --- the pair that is looked at -------------------------------------------------------------------------- */
  const className = (item) => (typeof item === "number" ? data.classes[item] : item ?? "—");

  function exampleItem(index) {
    const example = data.examples[index];
    const item = make("li");
    if (example.png) {
      const image = make("img");
      image.src = "data:image/png;base64," + example.png;
      image.alt = example.id;
      item.append(make("p", image));
    }
    if (example.text !== null) {
      const text = make("p", example.text, "text");
      text.dir = "auto";
      item.append(text);
    } else if (!example.png) item.append(make("p", make("code", example.id)));
    return [item, example];
  }

  function exampleList(list, a, b, title) {
    if (!list) return [];
    const [total, shown] = list;
    const parts = [make("h4", fill(title, { count: total }))];
    if (total && !shown.length) parts.push(make("p", words.no_list, "muted"));
    const items = shown.map((index) => {
      const [item, example] = exampleItem(index);
      item.append(make("p", [
        ...fill("label", { label: className(example.label) }), " · ", isolated(names[a]), words.colon, isolated(className(example.answers[a])),
        " · ", isolated(names[b]), words.colon, isolated(className(example.answers[b])),
      ], "facts"));
      return item;
    });
    parts.push(make("ul", items.slice(0, 4), "examples"));
    if (items.length > 4) parts.push(make("details", [make("summary", fill("further", { count: items.length - 4 })), make("ul", items.slice(4), "examples")]));
    if (shown.length && shown.length < total) parts.push(make("p", fill("more", { count: total - shown.length }), "muted"));
    return [make("div", parts)];
  }

  function measureTable(index) {
    const head = make("tr", ["measure", "value", "interval", "count", "chance"].map((key) => {
      const cell = make("th", words[key]);
      cell.scope = "col";
      return cell;
    }));
    /* What is undefined for one reason is one row: no reason is said twice. */
    const missing = new Map();
    const rows = [];
    const row = (name, cells) => {
      const title = make("th", name);
      title.scope = "row";
      rows.push(make("tr", [title, ...cells]));
    };
    for (const measure of measures) {
      const number = numberOf(measure, index);
      if (number.value === null && number.reason) {
        missing.set(number.reason, [...(missing.get(number.reason) ?? []), measure.title]);
        continue;
      }
      const value = make("td", number.text, "n");
      const minding = [measure.z && measure.z[index] !== null ? "z = " + fixed(measure.z[index], 1) : "", number.reason];
      if (minding.some(Boolean)) value.append(make("small", " " + minding.filter(Boolean).join("; ")));
      row(measure.title, [value, make("td", number.interval, "n"), make("td", number.n === null ? "—" : String(number.n), "n"), make("td", Array.isArray(measure.chance) ? measure.chance[index] : measure.chance, "n")]);
    }
    for (const [reason, titles] of missing) {
      const cell = make("td", reason);
      cell.colSpan = 4;
      row(titles.join(words.comma), [cell]);
    }
    const table = make("table", [make("caption", words.caption), make("thead", head), make("tbody", rows)]);
    const holder = make("div", fitted(table), "scroll");
    holder.tabIndex = 0;
    holder.setAttribute("role", "region");
    holder.setAttribute("aria-label", words.caption);
    return holder;
  }

  function showPair() {
    const a = Number(byId("first").value), b = Number(byId("second").value);
    const index = pairAt(a, b);
    const panel = byId("pair");
    const title = make("h3", a === b ? fill("replicas", { a: names[a] }) : [isolated(names[a]), " – ", isolated(names[b])]);
    if (index === undefined) { panel.replaceChildren(title, make("p", words.none)); return; }
    const claims = data.claims[index];
    const said = claims ? ["copies", "apart"].flatMap((key, at) => (claims[at] ? [make("p", fill(key, { p: claims[at] }))] : [])) : [];
    const [differ, fail] = data.lists[index];
    panel.replaceChildren(title, measureTable(index), ...said,
      make("div", [...exampleList(differ, a, b, "differ"), ...exampleList(fail, a, b, "fail")], "two"));
  }

  function choose(key) {
    const [a, b] = key.split(",");
    byId("first").value = a;
    byId("second").value = b;
    showPair();
    byId("pair").scrollIntoView({ block: "nearest" });
  }

  function options(select, items) {
    if (select) select.append(...items.map((text, index) => new Option(text, index)));
  }

  options(byId("measure"), measures.map((measure) => measure.title));
  options(byId("first"), names);
  options(byId("second"), names);
  options(byId("grid"), data.grids.map((grid) => names[grid.a] + " – " + names[grid.b]));
  if (byId("first")) {
    const first = (data.order.length > 1 && data.start) || [0, 0];
    byId("first").value = first[0];
    byId("second").value = first[1];
    for (const id of ["first", "second"]) byId(id).addEventListener("change", showPair);
    showPair();
  }
  if (byId("measure")) {
    byId("measure").value = Math.max(0, measures.findIndex((measure) => measure.name === data.main));
    byId("measure").addEventListener("change", () => draw("pairs"));
  }
  if (byId("grid")) byId("grid").addEventListener("change", () => draw("layers"));
  dark.addEventListener("change", drawAll);
  let waiting = 0, width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
  window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  drawAll();
})();
