"use strict";
// The page is complete without this script, which adds the numbers at the pointer, and opens what is folded
// where a link or the printer needs it.

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
unfoldTarget();
