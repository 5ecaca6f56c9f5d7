// The list: filters, order, search; only the rows in sight are elements.
const ROW = 78; // as in the style sheet
const view = { flags: 0, group: -1, order: "run", query: "", range: null, hits: null, shown: [], current: -1 };
const scroller = document.getElementById("scroller");
const list = document.getElementById("list");
const searchBox = document.getElementById("search");

const last = (value) => (value === null ? Infinity : value);
const ORDERS = {
  run: ["Order of the run", null],
  low: ["Lowest score first", (row) => last(row[BEST])],
  high: ["Highest score first", (row) => (row[BEST] === null ? Infinity : -row[BEST])],
  disagreement: ["Most disagreement first", (row) => -row[DISAGREEMENT]],
  gap: ["Surest mistakes first", (row) => (row[GAP] === null ? Infinity : -row[GAP])],
};

function passes(row, at) {
  if ((row[BITS] & view.flags) !== view.flags) return false;
  if (view.group >= 0 && !row[GROUPS].includes(view.group)) return false;
  if (view.range !== null) {
    const [low, high] = view.range;
    const inside = ([score]) => score !== null && score >= low && (score < high || (high === 1 && score === 1));
    if (!row[SOLUTIONS].some(inside)) return false;
  }
  return view.hits === null || view.hits.has(at);
}

function refresh({ keepPlace = false } = {}) {
  view.shown = [];
  rows.forEach((row, at) => { if (passes(row, at)) view.shown.push(at); });
  const key = ORDERS[view.order][1];
  if (key !== null) view.shown.sort((a, b) => key(rows[a]) - key(rows[b]) || a - b);
  const filtered = view.shown.length !== rows.length || view.query !== "" || view.order !== "run";
  document.getElementById("count").textContent = view.shown.length === rows.length
    ? counted(rows.length, "problem") : `${view.shown.length.toLocaleString("en")} of ${counted(rows.length, "problem")}${searchState()}`;
  document.getElementById("clear").hidden = !filtered;
  list.style.height = `${view.shown.length * ROW}px`;
  if (!keepPlace) scroller.scrollTop = 0;
  draw();
  showTurns();
}

let searched = 1;
const searchState = () => (searched < 1 ? `, ${Math.floor(searched * 100)}% searched` : "");

function draw() {
  const height = scroller.clientHeight || window.innerHeight;
  const from = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 4);
  const to = Math.min(view.shown.length, Math.ceil((scroller.scrollTop + height) / ROW) + 4);
  const held = list.contains(document.activeElement) ? document.activeElement.dataset.at : null;
  list.replaceChildren(...view.shown.slice(from, to).map((at, offset) => listRow(at, from + offset)));
  if (held !== null) list.querySelector(`[data-at="${held}"]`)?.focus({ preventScroll: true });
}

function listRow(at, place) {
  const row = rows[at];
  const marks = row[SOLUTIONS].slice(0, 8).map(([score, correct]) =>
    chip(score, { count: 2, small: true, sign: correct === null ? "" : correct ? " ✓" : " ✗" }));
  if (row[SOLUTIONS].length > 8) marks.push(make("span", { class: "name" }, `+${row[SOLUTIONS].length - 8}`));
  const signs = index.flags.filter((flag, bit) => (row[BITS] >> bit) & 1).slice(0, row[SOLUTIONS].length > 3 ? 1 : 2)
    .map((flag) => make("span", { class: flag.key === "disputed" || flag.key === "forced" ? "" : "alarm" }, flag.label));
  const item = make("li", { "aria-setsize": view.shown.length, "aria-posinset": place + 1 },
    make("a", { href: `#p${at + 1}`, "data-at": at, "aria-current": at === view.current ? "true" : null },
      make("span", { class: "says" }, make("span", { class: "name" }, row[NAME]), row[EXCERPT]),
      make("span", { class: "marks" }, ...marks,
        make("span", { class: "signs" }, ...signs.flatMap((sign, n) => (n ? [" · ", sign] : [sign]))))));
  item.style.transform = `translateY(${place * ROW}px)`;
  return item;
}

function bringIntoSight(at) {
  const place = view.shown.indexOf(at);
  if (place < 0) return;
  const top = place * ROW;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  else if (top + ROW > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + ROW - scroller.clientHeight;
}

let searchNumber = 0;
let typing;
function startSearch(query) {
  const mine = ++searchNumber;
  view.query = query.trim();
  searched = 1;
  view.hits = null;
  if (view.query === "") return refresh();
  view.hits = new Set();
  searched = 0;
  let drawnAt = performance.now();
  refresh();
  return search(view.query, () => mine !== searchNumber, (at) => view.hits.add(at), (share) => {
    searched = share;
    if (share === 1 || performance.now() - drawnAt > 150) {
      drawnAt = performance.now();
      refresh({ keepPlace: true });
    }
  }).catch(fail);
}

function setRange(range) {
  view.range = range;
  for (const bin of document.querySelectorAll("svg .bin")) {
    bin.setAttribute("aria-pressed", String(range !== null && Number(bin.dataset.low) === range[0]));
  }
  refresh();
}

function clearFilters() {
  searchBox.value = "";
  searchNumber++;
  Object.assign(view, { flags: 0, group: -1, order: "run", query: "", hits: null });
  searched = 1;
  document.getElementById("group").value = "-1";
  document.getElementById("order").value = "run";
  for (const button of document.querySelectorAll(".flag")) button.setAttribute("aria-pressed", "false");
  setRange(null);
}

function buildFilters() {
  document.getElementById("flags").append(...index.flags.map((flag, bit) => {
    const button = make("button", { type: "button", class: "flag", "aria-pressed": "false", title: flag.help, "data-flag": flag.key },
      flag.label, make("span", {}, flag.count.toLocaleString("en")));
    button.addEventListener("click", () => {
      view.flags ^= 1 << bit;
      button.setAttribute("aria-pressed", String(Boolean((view.flags >> bit) & 1)));
      refresh();
    });
    return button;
  }));
  const group = document.getElementById("group");
  group.append(make("option", { value: -1 }, "All"), ...index.groups.map(([name, value, count], at) =>
    make("option", { value: at }, `${name}: ${value} (${count.toLocaleString("en")})`)));
  group.addEventListener("change", () => { view.group = Number(group.value); refresh(); });
  document.getElementById("group-label").hidden = index.groups.length === 0;
  const order = document.getElementById("order");
  const useful = { gap: rows.some((row) => row[GAP] !== null), disagreement: rows.some((row) => row[DISAGREEMENT] > 0) };
  order.append(...Object.entries(ORDERS).filter(([key]) => useful[key] !== false)
    .map(([key, [label]]) => make("option", { value: key }, label)));
  order.addEventListener("change", () => { view.order = order.value; refresh(); });
  document.getElementById("clear").addEventListener("click", clearFilters);
  searchBox.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => startSearch(searchBox.value), 120);
  });
  scroller.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(draw).observe(scroller);
  document.querySelector('[data-chart="scores"] svg')?.setAttribute("role", "group"); // an image has no buttons
  for (const bin of document.querySelectorAll('[data-chart="scores"] .bin')) {
    const range = [Number(bin.dataset.low), Number(bin.dataset.high)];
    bin.setAttribute("role", "button");
    bin.setAttribute("tabindex", "0");
    const toggle = () => {
      const same = view.range !== null && view.range[0] === range[0];
      setRange(same ? null : range);
      if (!same && window.matchMedia("(max-width: 760px)").matches) location.hash = "#problems";
    };
    bin.addEventListener("click", toggle);
    bin.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
    });
  }
}
