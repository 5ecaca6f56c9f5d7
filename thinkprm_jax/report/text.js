// Elements and text. Text of problems, solutions and chains becomes text nodes and nothing else.
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const TEX = /\$\$[^$]{1,2000}\$\$|\$(?![\s\d]*[\s,.])[^$\n]{1,400}?[^\s$\\]\$(?!\d)|\$[^\s$]\$|\\\([^\n]{1,400}?\\\)|\\\[[^]{1,2000}?\\\]/g;
const HEADING = /^(?:[#*]{0,4}\s?)Step \d{1,6}\b[^\n]{0,2}/gim;

const MATHML = document.getElementById("mathml").namespaceURI;

// A formula as the page's maker has converted it: [element, attributes, a text or another one, ...].
function formula([name, attributes, ...inside]) {
  const element = document.createElementNS(MATHML, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...inside.map((part) => (typeof part === "string" ? part : formula(part))));
  return element;
}

// The text with its formulas, or, of what could not be converted, its TeX in a typewriter face; with headings `Step k`
// in bold where asked. formulas: TeX -> MathML.
function rich(text, formulas, headings = false) {
  const pieces = [];
  let end = 0;
  const found = [...text.matchAll(TEX)].map((match) => [match.index, match[0], "tex"]);
  if (headings) found.push(...[...text.matchAll(HEADING)].map((match) => [match.index, match[0], "head"]));
  found.sort((a, b) => a[0] - b[0]);
  for (const [start, piece, kind] of found) {
    if (start < end) continue;
    if (start > end) pieces.push(text.slice(end, start));
    const known = kind === "tex" && Object.hasOwn(formulas, piece);
    pieces.push(known ? make("span", { class: "formula", title: piece }, formula(formulas[piece])) : make("span", { class: kind }, piece));
    end = start + piece.length;
  }
  if (end < text.length) pieces.push(text.slice(end));
  return pieces;
}

function scoreClass(score) {
  return score === null || score === undefined ? "unknown" : `p${Math.floor(score * 10 + 0.5)}`;
}

function digits(score, count = 3) {
  return score === null || score === undefined ? "–" : score.toFixed(count);
}

function chip(score, { count = 3, small = false, sign = "", title = null } = {}) {
  title ??= score > 0 && score < 0.001 ? String(score) : null; // the digits shown would say nothing
  return make("span", { title, class: `chip ${small ? "small " : ""}${scoreClass(score)}` }, `${digits(score, count)}${sign}`);
}

function finding(first) {
  if (first === null || first === undefined) return "no first error named";
  return first < 0 ? "all steps correct" : `first error in step ${first + 1}`;
}

function counted(number, name) {
  return `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;
}

// Arrow keys move between the tabs of a list, as in any program.
function tabs(label, names, chosen, choose) {
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    choose((chosen + step + names.length) % names.length, true);
  };
  const buttons = names.map((content, at) =>
    make("button", {
      type: "button", class: "tab", role: "tab", "aria-selected": String(at === chosen), tabindex: at === chosen ? 0 : -1,
      onclick: () => choose(at, true),
    }, ...content));
  return make("div", { class: "tabs", role: "tablist", "aria-label": label, onkeydown: move }, ...buttons);
}
