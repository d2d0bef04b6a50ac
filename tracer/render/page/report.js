"use strict";
// The page is complete without this script, which adds the numbers at the pointer, searches and zooms flame
// graphs, and opens what is folded where a link or the printer needs it.

const SVG = "http://www.w3.org/2000/svg";

function made(tag, text) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  return element;
}

function readNumbers(view) {
  const { titles, rows } = JSON.parse(view.querySelector("script").textContent);
  const picture = view.querySelector(".picture");
  const plots = [...picture.querySelectorAll(".row:not(.marks):not(.times) > .plot")];
  const tip = made("dl");
  tip.className = "tip";
  tip.hidden = true;
  const lines = plots.map((plot) => {
    const line = plot.appendChild(document.createElementNS(SVG, "line"));
    line.setAttribute("class", "cross");
    line.setAttribute("y2", "100%");
    line.setAttribute("visibility", "hidden");
    return line;
  });

  function hide() {
    tip.hidden = true;
    for (const line of lines) line.setAttribute("visibility", "hidden");
  }

  function show(row) {
    const share = (row + 1) / rows.length;
    const items = rows[row].flatMap((text, column) => text === "" ? [] : [made("dt", titles[column]), made("dd", text)]);
    tip.replaceChildren(...items);
    tip.hidden = false;
    for (const line of lines) {
      line.setAttribute("x1", `${100 * share}%`);
      line.setAttribute("x2", `${100 * share}%`);
      line.setAttribute("visibility", "visible");
    }
    const plot = plots[0].getBoundingClientRect();
    const x = plot.left - view.getBoundingClientRect().left + share * plot.width;
    const left = share < 0.5 ? x + 12 : x - 12 - tip.offsetWidth;
    tip.style.left = `${Math.max(0, left)}px`;
  }

  const moment = made("label", "Moment");
  const range = made("input");
  Object.assign(range, { type: "range", min: 0, max: rows.length - 1, value: rows.length - 1 });
  const said = () => range.setAttribute("aria-valuetext", rows[range.value].map((text, column) =>
    text && `${titles[column]} ${text}`).filter(Boolean).join(", "));
  range.addEventListener("input", () => { show(Number(range.value)); said(); });
  range.addEventListener("blur", hide);
  moment.className = "moment";
  moment.append(range);
  said();
  picture.after(moment);
  view.append(tip);

  function point(event) {
    const plot = plots[0].getBoundingClientRect();
    const row = Math.floor((event.clientX - plot.left) / plot.width * rows.length);
    if (row < 0 || row >= rows.length) return hide();
    range.value = row;
    said();
    show(row);
  }
  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerdown", point);
  picture.addEventListener("pointerleave", hide);
  view.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

function readFlame(figure) {
  const graph = figure.querySelector(".blocks");
  const blocks = [...graph.querySelectorAll("svg")].map((element) => ({
    element, box: element.querySelector("rect"), words: element.querySelector("title").textContent,
    left: parseFloat(element.getAttribute("x")), width: parseFloat(element.getAttribute("width")),
    row: Number(element.getAttribute("y")),
  }));
  const rows = [...new Set(blocks.map((one) => one.row))].sort((one, other) => one - other);
  const tiny = 1e-3;  // places are rounded to this
  const within = (inner, outer) => inner.left >= outer.left - tiny
    && inner.left + inner.width <= outer.left + outer.width + tiny;
  const on = (row) => blocks.filter((one) => one.row === row && !one.element.hasAttribute("hidden"));
  const said = made("output");
  let at = blocks[0];

  function choose(block) {
    at.box.classList.remove("at");
    at = block;
    at.box.classList.add("at");
    said.textContent = at.words;
  }

  function zoom(top) {
    for (const one of blocks) {
      const above = one.row <= top.row && within(top, one);
      const shown = above || (one.row > top.row && within(one, top));
      one.element.toggleAttribute("hidden", !shown);
      one.element.setAttribute("x", above ? "0%" : `${100 * (one.left - top.left) / top.width}%`);
      one.element.setAttribute("width", above ? "100%" : `${100 * one.width / top.width}%`);
    }
    all.disabled = top === blocks[0];
    choose(top);
  }

  function step(key) {
    const row = rows.indexOf(at.row);
    if (key === "ArrowDown" || key === "ArrowUp") {
      const other = rows[row + (key === "ArrowDown" ? 1 : -1)];
      return on(other).find((one) => key === "ArrowDown" ? within(one, at) : within(at, one));
    }
    const beside = on(at.row);
    return beside[beside.indexOf(at) + (key === "ArrowRight" ? 1 : -1)];
  }

  const seek = made("p"), label = made("label", "Search"), input = made("input"), all = made("button", "Show all");
  seek.className = "seek";
  input.type = "search";
  all.type = "button";
  label.append(input);
  seek.append(label, all, made("span", "Click, or arrow keys and Enter: zoom. Escape: all."));
  graph.before(seek);
  graph.after(said);
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    const found = blocks.filter((one) => wanted && one.words.slice(0, one.words.lastIndexOf(": ")).toLowerCase().includes(wanted));
    for (const one of blocks) one.box.classList.toggle("found", found.includes(one));
    const outermost = found.filter((one) => !found.some((other) => other.row < one.row && within(one, other)));
    const share = outermost.reduce((sum, one) => sum + one.width, 0);
    said.textContent = wanted ? `${share.toFixed(0)} % in what was found, and below (frames: ${found.length})` : at.words;
  });
  all.addEventListener("click", () => zoom(blocks[0]));
  for (const one of blocks) one.element.addEventListener("click", () => zoom(one));
  graph.setAttribute("tabindex", "0");
  graph.setAttribute("role", "application");
  graph.addEventListener("keydown", (event) => {
    const other = event.key.startsWith("Arrow") ? step(event.key) : undefined;
    if (other) choose(other);
    else if (event.key === "Enter") zoom(at);
    else if (event.key === "Escape") zoom(blocks[0]);
    else if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
  });
  zoom(blocks[0]);
}

function unfoldTarget() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
}

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
addEventListener("hashchange", unfoldTarget);
for (const view of document.querySelectorAll(".view")) readNumbers(view);
for (const figure of document.querySelectorAll(".flame")) readFlame(figure);
unfoldTarget();
