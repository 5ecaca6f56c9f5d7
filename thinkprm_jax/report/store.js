// The data: an index of all problems, and parts that are unpacked when a problem in them is looked at.
const index = JSON.parse(document.getElementById("index").textContent);
const [NAME, EXCERPT, SOLUTIONS, PART, BITS, GROUPS, BEST, DISAGREEMENT, GAP] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const rows = index.rows;
const firstOfPart = [];
rows.forEach((row, at) => { firstOfPart[row[PART]] ??= at; });

// The parts stand behind this script: they are there once the document has been parsed.
const parsed = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", () => resolve(), { once: true });
});

const KEPT_PARTS = 12;
const parts = new Map(); // part -> promise of its problems, the latest used last

async function unpack(number) {
  await parsed;
  const script = document.getElementById(`part-${number}`);
  if (script === null) throw new Error("The end of this file is missing.");
  if (script.type === "application/json") return JSON.parse(script.textContent);
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser cannot unpack the page's data: it has no DecompressionStream. One of 2023 or later has.");
  }
  const bytes = Uint8Array.from(atob(script.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function loadPart(number) {
  const found = parts.get(number) ?? unpack(number);
  parts.delete(number);
  parts.set(number, found);
  if (parts.size > KEPT_PARTS) parts.delete(parts.keys().next().value);
  return found;
}

async function loadProblem(at) {
  const number = rows[at][PART];
  return (await loadPart(number))[at - firstOfPart[number]];
}

// The text that a search looks through, in lower case. Kept while all of it is small enough to keep.
const KEPT_TEXT = 96e6;
const texts = new Map(); // part -> texts of its problems
let keptText = 0;

async function searchTexts(number) {
  if (texts.has(number)) return texts.get(number);
  const found = (await loadPart(number)).map(textOf);
  const size = found.reduce((sum, text) => sum + text.length, 0);
  if (keptText + size < KEPT_TEXT && !texts.has(number)) {
    keptText += size;
    texts.set(number, found);
  }
  return found;
}

function textOf(problem) {
  const pieces = [problem.name, problem.text, problem.answer ?? ""];
  for (const solution of problem.solutions) {
    pieces.push(...solution.steps, solution.answer ?? "", solution.error ?? "");
    for (const chain of solution.chains) {
      pieces.push(chain.parts.map((part) => (typeof part === "string" ? part : part[0])).join(""));
    }
  }
  return pieces.join("\n").toLowerCase();
}

// Calls found(at) for every problem that has the text; stops when isStale() says so. Progress in [0, 1].
async function search(query, isStale, found, progress) {
  const wanted = query.toLowerCase();
  for (let number = 0; number < firstOfPart.length; number++) {
    const pieces = await searchTexts(number);
    if (isStale()) return;
    pieces.forEach((text, offset) => { if (text.includes(wanted)) found(firstOfPart[number] + offset); });
    progress((number + 1) / firstOfPart.length);
  }
}
