"use strict";
// The views of the console. Each asks the API beside the page, with the token of this tab.

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("meta1-token") || "";
let level = "read";
let timer = 0;
let drawn = 0; // counts views, so that a late answer does not overwrite a newer one
const every = 5000;

class Refused extends Error {}

async function ask(path, body) {
  const options = { headers: {}, cache: "no-store", credentials: "same-origin" };
  if (token) options.headers.Authorization = "Bearer " + token;
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const r = await fetch(path, options);
  const answer = await r.json().catch(() => ({ error: r.status + " " + r.statusText }));
  if (r.status === 401) throw new Refused(answer.error);
  if (!r.ok && r.status !== 503 && r.status !== 422 || answer && answer.error && !r.ok) throw new Error(answer.error || r.statusText);
  return answer;
}

function login(why) {
  clearTimeout(timer);
  $("view").replaceChildren();
  $("login").hidden = false;
  $("loginError").textContent = token ? why : "";
  $("logout").hidden = true;
  $("token").focus();
}

$("login").addEventListener("submit", async (e) => {
  e.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  sessionStorage.setItem("meta1-token", token);
  await begin();
});

$("logout").addEventListener("click", () => {
  token = "";
  sessionStorage.removeItem("meta1-token");
  login("");
});

async function begin() {
  try {
    const s = await ask("status");
    $("host").textContent = s.hostname + " " + s.version;
    document.title = s.hostname + " – meta1";
    level = (await ask("whoami")).level;
    $("level").textContent = level === "change" ? "This token may change things." : "Read-only: this token changes nothing.";
    $("login").hidden = true;
    $("logout").hidden = !token;
    await draw();
  } catch (e) {
    if (e instanceof Refused) login(e.message);
    else fail(e);
  }
}

function fail(e) {
  $("state").className = "bad";
  $("state").textContent = "No answer: " + e.message;
}

// confirmed asks before something is done; it keeps the focus where it was.
function confirmed(text) {
  const d = $("confirm");
  $("confirmText").textContent = text;
  return new Promise((done) => {
    d.addEventListener("close", () => done(d.returnValue === "yes"), { once: true });
    d.returnValue = "no";
    d.showModal();
    $("confirmNo").focus();
  });
}

const words = {
  hold: "Hold: it stays in the queue and is not tried.",
  release: "Release: held mail goes on.",
  flush: "Try it now.",
  remove: "Remove: it is dropped, and nobody is told.",
  expire: "Give up: its sender gets a bounce.",
};

function operations(select, what) {
  return el("div", { class: "row" }, Object.keys(words).map((op) =>
    el("button", {
      type: "button", class: op === "remove" || op === "expire" ? "danger" : null, disabled: level !== "change",
      title: level === "change" ? words[op] : "This token may not change anything.",
      on: { click: async () => {
        if (!(await confirmed(what + " – " + words[op]))) return;
        try {
          const done = await ask("queue", Object.assign({ op: op }, select()));
          $("state").className = done.error ? "bad" : "good";
          $("state").textContent = op + ": " + done.done + " recipients" + (done.busy ? ", " + done.busy + " left alone: they are being delivered" : "") + (done.error ? "; " + done.error : "");
          setTimeout(draw, 1500);
        } catch (e) { fail(e); }
      } },
    }, op)));
}

function rate(s, window, name) { return ((s.rates[window] || {})[name] * 60 || 0).toFixed(1); }

const ageNames = ["<5", "<10", "<20", "<40", "<80", "<160", "<320", "<640", "<1280", "older"];

const views = {
  async overview() {
    const [s, q, d, h] = await Promise.all([ask("stats"), ask("queue/summary"), ask("drain"), ask("healthz")]);
    const out = [el("h2", {}, "Now")];
    for (const reason of h.reasons || []) out.push(el("p", { class: "bad" }, "Not well: " + reason));
    if (d.phase !== "none") out.push(el("p", { class: "bad" }, d.phase + ": " + d.left + " to deliver, " + d.kept + " kept"));
    out.push(el("div", { class: "cards" },
      card("takes mail", s.accepting), card("sessions of " + number(s.now.sessions_max), number(s.now.sessions)),
      card("deliveries", number(s.now.in_flight)), card("active queue", number(s.now.AQ_entries)), card("deferred", number(s.now.deferred)),
      card("room on disk", size(s.now.disk_room || 0)), card("up", ago(s.started, s.time))));
    out.push(table("Rates a minute", [["Count", (n) => n], ["1 min", (n) => rate(s, "1m", n), "n"], ["5 min", (n) => rate(s, "5m", n), "n"],
      ["15 min", (n) => rate(s, "15m", n), "n"], ["Total", (n) => number(s.counts[n]), "n"]],
      ["sessions", "messages", "accepted", "delivered", "deferrals", "bounced"]));
    out.push(el("h2", {}, "Why mail waits"), table("Reasons", [["Recipients", (r) => number(r.recipients), "n"], ["Reason", (r) => r.reason, "wide"]], q.reasons.slice(0, 20), "The queue is empty."));
    out.push(ages(q));
    return out;
  },

  async queue(argument) {
    const [q, page] = await Promise.all([ask("queue/summary"), ask("queue?max=100&after=" + encodeURIComponent(argument || ""))]);
    const out = [ages(q), el("h2", {}, "Recipients")];
    out.push(table("In the order of arrival", [["Message", (r) => messageLink(r.ss_ta)], ["Recipient", (r) => r.rcpt], ["Sender", (r) => r.sender || "<>"],
      ["State", (r) => r.state], ["Age", (r) => ago(r.arrival), "n"], ["Next try", (r) => clock(r.next_try)], ["Why", (r) => r.reason, "wide"]], page.entries, "The queue is empty."));
    const nav = el("div", { class: "row" });
    if (argument) nav.append(el("a", { href: "#queue" }, "First page"));
    if (page.more) nav.append(el("a", { href: "#queue/" + encodeURIComponent(page.entries[page.entries.length - 1].rcpt_id) }, "Next page"));
    out.push(nav);
    const field = (id, label) => [el("label", { for: id }, label), el("input", { id: id, autocomplete: "off" })];
    const value = (id) => $(id).value.trim();
    const select = () => {
      const o = {};
      if (value("s-sender")) o.sender = value("s-sender");
      if (value("s-domain")) o.domain = value("s-domain");
      if (value("s-reason")) o.reason = value("s-reason");
      if (Object.keys(o).length === 0) throw new Error("nothing is chosen");
      return o;
    };
    out.push(el("h2", {}, "Hold, release, remove"), el("p", { class: "soft" }, "For all recipients that match everything that is given; one message is changed on its own page."),
      el("div", { class: "fields" }, el("div", {}, field("s-sender", "Sender or @domain")), el("div", {}, field("s-domain", "Domain of the recipient")), el("div", {}, field("s-reason", "Part of the reason"))),
      operations(select, "All recipients that match"));
    return out;
  },

  async message(id) {
    const form = el("form", { class: "row", on: { submit: (e) => { e.preventDefault(); location.hash = "#message/" + encodeURIComponent($("m-id").value.trim()); } } },
      el("label", { for: "m-id" }, "Identifier of a message or recipient"), el("input", { id: "m-id", value: id || "", required: true, spellcheck: "false" }), el("button", {}, "Show"));
    if (!id) return [el("h2", {}, "One message"), form];
    let m;
    try { m = await ask("messages/" + encodeURIComponent(id)); } catch (e) {
      if (e instanceof Refused) throw e;
      return [form, el("p", { class: "bad" }, e.message)];
    }
    const out = [form, ...story(m)];
    if (m.queued) out.push(el("h2", {}, "Change it"), operations(() => ({ ss_ta: m.ss_ta }), "Message " + m.ss_ta));
    return out;
  },

  async hosts() {
    const h = await ask("hosts");
    const out = [el("h2", {}, "Hosts")];
    for (const f of h.tried_last || []) out.push(el("p", { class: "bad" }, f.family + " does not work until " + clock(f.until) + ": " + f.reason));
    if (h.providers) out.push(table("Providers", [["Provider", (p) => p.provider], ["In use", (p) => p.in_use, "n"], ["Waiting", (p) => number(p.waiting), "n"], ["Rate", (p) => p.rate ? Math.round(p.rate) + "/" + p.rate_interval : "–", "n"], ["Until", (p) => clock(p.until)], ["Reason", (p) => p.reason, "wide"]], h.providers));
    out.push(table("Closed hosts come first", [["Host", (r) => r.host], ["State", (r) => el("span", { class: r.state === "closed" ? "bad" : null }, r.state)], ["In use", (r) => r.in_use, "n"],
      ["Window", (r) => r.window + " of " + r.window_max, "n"], ["Waiting", (r) => number(r.waiting), "n"], ["TLS", (r) => [r.tls, r.verify].filter(Boolean).join(" ")], ["Until", (r) => clock(r.until)], ["Reason", (r) => r.reason, "wide"]], h.hosts));
    return out;
  },

  async connections() {
    const c = await ask("connections");
    const close = (r) => el("button", { type: "button", class: "danger", disabled: level !== "change" || !r.id, "aria-label": "Close " + r.id, on: { click: async () => {
      if (!(await confirmed("Close " + r.id + " with " + r.peer + " at once?"))) return;
      try { await ask("connections/close", { id: r.id }); setTimeout(draw, 300); } catch (e) { fail(e); }
    } } }, "close");
    return [el("h2", {}, "Connections"), table(c.connections.length + (c.more ? " and more" : "") + ", the oldest first", [["Way", (r) => r.direction], ["Id", (r) => el("span", { class: "mono" }, r.id || "–")],
      ["Peer", (r) => r.peer + (r.name ? " " + r.name : "")], ["User", (r) => r.user], ["TLS", (r) => r.tls], ["State", (r) => r.state], ["For", (r) => ago(r.since), "n"],
      ["Open", (r) => ago(r.begun), "n"], ["Messages", (r) => number(r.messages), "n"], ["", close]], c.connections.slice(0, 500))];
  },

  async explain() {
    const field = (id, label, value, hint) => el("div", {}, el("label", { for: id }, label), el("input", { id: id, value: value, placeholder: hint, spellcheck: "false", autocomplete: "off" }));
    const result = el("div", { "aria-live": "polite" });
    return [el("h2", {}, "What would become of mail"), el("form", { on: { submit: async (e) => {
      e.preventDefault();
      try {
        const v = (id) => $(id).value.trim();
        result.replaceChildren(...explained(await ask("explain", {
          server: v("e-server"), client: v("e-client"), helo: v("e-helo"), from: v("e-from"), auth: v("e-auth"), to: v("e-to").split(/[\s,]+/).filter(Boolean),
        })));
      } catch (err) { result.replaceChildren(el("p", { class: "bad" }, err.message)); }
    } } }, el("div", { class: "fields" }, field("e-client", "Address of the client", "192.0.2.1"), field("e-helo", "EHLO", "client.example"), field("e-from", "Sender", "", "empty for <>"),
      field("e-to", "Recipients", ""), field("e-auth", "Authenticated as", ""), field("e-server", "Section", "", "smtps, the first")), el("div", { class: "row" }, el("button", {}, "Explain"))), result];
  },

  async config() {
    const all = await ask("config?defaults=true");
    const rows = (text, set) => all.filter((o) => (!set || o.set) && (!text || (o.section + "/" + o.name + " " + JSON.stringify(o.value)).toLowerCase().includes(text.toLowerCase())));
    const list = el("div", {});
    const show = () => list.replaceChildren(table("Options in effect", [["Option", (o) => el("span", { class: "mono" }, (o.section ? o.section + "/" : "") + o.name)],
      ["Value", (o) => typeof o.value === "string" ? o.value : JSON.stringify(o.value), "wide"], ["Set at", (o) => o.set ? o.origin : "default"]], rows($("c-find").value, $("c-set").checked)));
    setTimeout(show);
    return [el("h2", {}, "Configuration"), el("div", { class: "row" }, el("label", { for: "c-find" }, "Find"), el("input", { id: "c-find", type: "search", on: { input: show } }),
      el("input", { id: "c-set", type: "checkbox", checked: true, on: { change: show } }), el("label", { for: "c-set" }, "only what a file sets")), list];
  },
};

// ages is the queue by destination and age, as qshape shows it.
function ages(q) {
  const most = Math.max(1, ...q.destinations.map((d) => Math.max(...d.ages)));
  const cell = (i) => (d) => {
    const s = el("span", {}, d.ages[i] ? number(d.ages[i]) : "·");
    if (d.ages[i]) s.style.backgroundColor = "rgba(var(--heat), " + (0.08 + 0.4 * Math.log(1 + d.ages[i]) / Math.log(1 + most)).toFixed(2) + ")";
    return s;
  };
  return el("div", {}, el("h2", {}, "Queue by destination and age in minutes"), el("p", { class: "soft" }, number(q.recipients) + " recipients of " + number(q.messages) + " messages, " + size(q.bytes) + ", counted " + clock(q.time)),
    table("Destinations", [["Destination", (d) => d.destination], ["All", (d) => number(d.recipients), "n"], ...ageNames.map((n, i) => [n, cell(i), "n"]),
      ["Until", (d) => clock(d.next_try)], ["Why", (d) => d.reason, "wide"]], q.destinations.slice(0, 50), "The queue is empty."));
}

function checks(list) {
  return el("ul", { class: "steps" }, (list || []).map((c) => el("li", {}, [c.check, c.map, c.where, c.key && "key " + c.key, c.value && "has " + c.value, c.effect].filter(Boolean).join(" · "), c.decides ? el("b", {}, " decides") : "")));
}

// explained shows a report of explain.
function explained(r) {
  const out = [el("h2", {}, "Verdict: ", el("span", { class: r.verdict === "accept" ? "good" : "bad" }, r.verdict))];
  for (const s of r.stages || []) {
    out.push(el("h2", {}, s.stage + (s.command ? ": " + s.command : "")), checks(s.checks), el("p", { class: "mono" }, s.reply || "no reply"));
    if (s.why) out.push(el("p", { class: "soft" }, s.why));
    if (s.options) out.push(table("It depends on", [["Option", (o) => o.option], ["Value", (o) => o.value], ["Set at", (o) => o.where]], s.options));
  }
  for (const p of r.recipients || []) {
    for (const route of p.routes || []) {
      out.push(el("h2", {}, "Route of " + route.rcpt + (route.dest ? " by " + route.dest : "")), checks(route.checks));
      if (route.reply) out.push(el("p", { class: "bad" }, route.reply));
      out.push(table("Hosts", [["Host", (h) => h.hop], ["TLS", (h) => h.tls], ["State", (h) => h.state, "wide"]], route.hops, "None."));
    }
  }
  for (const n of r.notes || []) out.push(el("p", { class: "soft" }, n));
  return out;
}

// draw shows the view that the address names, and comes again while nobody works in it.
async function draw() {
  clearTimeout(timer);
  const [name, ...rest] = (location.hash.slice(1) || "overview").split("/");
  const view = views[name] ? name : "overview";
  for (const a of document.querySelectorAll("nav a")) {
    if (a.getAttribute("href") === "#" + view) a.setAttribute("aria-current", "page"); else a.removeAttribute("aria-current");
  }
  const mine = ++drawn;
  try {
    const content = await views[view](decodeURIComponent(rest.join("/")));
    if (mine !== drawn) return;
    $("view").replaceChildren(...content);
    if ($("state").className === "bad" && $("state").textContent.startsWith("No answer")) { $("state").textContent = ""; $("state").className = ""; }
  } catch (e) {
    if (e instanceof Refused) return login(e.message);
    fail(e);
  }
  document.body.dataset.view = view; // for tests: it is drawn
  if (view === "overview" || view === "hosts") timer = setTimeout(again, every);
}

// again draws anew unless the page is hidden, or the focus is on something in the view.
function again() {
  if (document.hidden || $("view").contains(document.activeElement) || $("confirm").open) timer = setTimeout(again, every);
  else draw();
}

window.addEventListener("hashchange", () => { if ($("login").hidden) draw().then(() => $("main").focus({ preventScroll: true })); });
begin();
