"use strict";
// What the views are made of. Nothing is ever parsed as HTML: all text goes in as text.

function el(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes || {})) {
    if (v === null || v === undefined || v === false) continue;
    if (k === "on") { for (const [event, f] of Object.entries(v)) e.addEventListener(event, f); continue; }
    e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return e;
}

function number(n) { return Number(n || 0).toLocaleString("en"); }

function clock(t) {
  if (!t) return "–";
  const d = new Date(t);
  const today = new Date().toDateString() === d.toDateString();
  return today ? d.toLocaleTimeString() : d.toLocaleString();
}

function ago(t, now) {
  let s = Math.max(0, Math.round((new Date(now || Date.now()) - new Date(t)) / 1000));
  if (s < 120) return s + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  if (s < 172800) return Math.round(s / 3600) + " h";
  return Math.round(s / 86400) + " d";
}

function size(n) {
  for (const unit of ["B", "KB", "MB", "GB"]) {
    if (n < 1024) return (unit === "B" ? n : n.toFixed(1)) + " " + unit;
    n /= 1024;
  }
  return n.toFixed(1) + " TB";
}

// table makes a table; columns are [title, cell(row), class].
function table(caption, columns, rows, empty) {
  if (!rows || rows.length === 0) return el("p", { class: "soft" }, empty || "None.");
  const head = el("tr", {}, columns.map((c) => el("th", { scope: "col", class: c[2] }, c[0])));
  const body = rows.map((r) => el("tr", {}, columns.map((c) => {
    const cell = c[1](r);
    return el("td", { class: [c[2], cell instanceof Node && cell.textContent === "·" ? "none" : ""].filter(Boolean).join(" ") || null, "data-name": c[0] }, cell instanceof Node ? cell : String(cell === undefined || cell === null || cell === "" ? "–" : cell));
  })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: "stack" }, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, body)));
}

function card(name, value, title) {
  return el("div", { class: "card", title: title }, el("b", {}, value), el("span", {}, name));
}

function messageLink(id, text) { return el("a", { href: "#message/" + encodeURIComponent(id), class: "mono" }, text || id); }

// story shows what the API tells of one message: who brought it, what was tried, and why it waits.
function story(m) {
  const out = [el("h2", {}, "Message ", el("span", { class: "mono" }, m.ss_ta))];
  out.push(el("p", {}, "From <", m.sender || "", ">", m.size ? ", " + size(m.size) : "", m.arrival ? ", arrived " + clock(m.arrival) : "",
    m.queued ? "" : m.queue_unknown ? "; the queue was not asked" : "; it has left the queue"));
  for (const n of m.notes || []) out.push(el("p", { class: "soft" }, "Note: " + n));
  if (m.log && m.log.accepted) {
    out.push(el("h2", {}, "Accepted " + clock(m.log.accepted.time)));
    out.push(table("How it came in", [["Field", (f) => f[0]], ["Value", (f) => f[1], "wide"]], Object.entries(m.log.accepted.fields || {}).sort()));
  }
  for (const r of m.recipients || []) {
    out.push(el("h2", {}, "<" + r.rcpt + "> ", el("span", { class: "mono soft" }, r.rcpt_id)));
    const steps = (r.steps || []).map((s) => (s.time ? clock(s.time) + "  " : "") + s.text + (s.at ? " " + clock(s.at) : ""));
    out.push(el("ol", { class: "steps" }, steps.map((s) => el("li", {}, s))));
  }
  return out;
}
