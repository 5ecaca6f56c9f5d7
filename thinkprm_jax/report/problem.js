// One problem: its solutions in tabs, the steps of one beside its chains.
const pane = document.getElementById("problem-view");
const open = { at: -1, problem: null, solution: 0, chain: 0 }; // chain -1: all of them

function showProblem() {
  const { problem, at } = open;
  const several = problem.solutions.length > 1;
  pane.replaceChildren(...[
    make("div", { class: "place" },
      make("h2", {}, `Problem ${at + 1} of ${rows.length.toLocaleString("en")}`),
      problem.name !== String(at + 1) && make("span", {}, problem.name),
      make("a", { href: `#p${at + 1}`, title: "Link to this problem" }, "Link"),
      make("span", { class: "turn" },
        make("button", { type: "button", class: "step-to", id: "previous", onclick: () => turn(-1) }, "← Previous"),
        make("button", { type: "button", class: "step-to", id: "next", onclick: () => turn(1) }, "Next →"))),
    make("div", { class: "problem-text", dir: "auto" }, ...rich(problem.text, problem.formulas)),
    factsOf(problem),
    problem.picks.length > 0 && make("div", { class: "scroll" }, picksTable(problem)),
    several && tabs("Solutions", problem.solutions.map((solution, place) => solutionTab(problem, solution, place)),
      open.solution, (place, focus) => chooseSolution(place, focus)),
    make("div", { id: "solution", role: several ? "tabpanel" : null }),
  ].filter(Boolean));
  showSolution();
  showTurns();
}

function showTurns() {
  if (open.at < 0 || document.getElementById("next") === null) return;
  document.getElementById("previous").disabled = neighbour(-1) === null;
  document.getElementById("next").disabled = neighbour(1) === null;
}

function factsOf(problem) {
  const facts = Object.entries(problem.groups).map(([name, group]) => make("span", {}, `${name}: `, make("b", {}, group)));
  if (problem.answer !== null) facts.unshift(make("span", {}, "reference answer: ", make("b", {}, problem.answer)));
  return facts.length > 0 && make("div", { class: "facts" }, ...facts);
}

// What each selection took at each N: its answer, and whether that is right.
function picksTable(problem) {
  const methods = [...new Set(problem.picks.map(([name]) => name.split("@")[0]))];
  const sizes = [...new Set(problem.picks.map(([name]) => Number(name.split("@")[1])))].sort((a, b) => a - b);
  const body = methods.map((method) => make("tr", {}, make("th", { scope: "row" }, method), ...sizes.map((size) => {
    const pick = problem.picks.find(([name]) => name === `${method}@${size}`);
    return make("td", {}, ...(pick ? pickCell(problem, pick) : []));
  })));
  return make("table", { class: "picks" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "selection"), ...sizes.map((size) => make("th", { scope: "col" }, `N = ${size}`)))),
    make("tbody", {}, ...body));
}

function pickCell(problem, [name, answer, took]) {
  const correct = problem.solutions[took[0]]?.correct ?? null;
  const said = (answer ?? "").replace(/^\\boxed\{([^]*)\}$/, "$1") || "no answer";
  const which = took.map((place) => `#${place + 1}`).join(" ");
  return [
    make("button", { type: "button", title: `${name} took ${said}: solution ${which}`, onclick: () => chooseSolution(took[0], true) }, said),
    correct === null ? "" : make("span", { class: correct ? "right" : "mistaken" }, correct ? " ✓" : " ✗"),
    make("span", { class: "name" }, ` ${took.length > 3 ? `${took.length} solutions` : which}`),
  ];
}

function solutionTab(problem, solution, place) {
  const final = problem.picks.length > 0 ? Math.max(...problem.picks.map(([name]) => Number(name.split("@")[1]))) : 0;
  const takers = problem.picks.filter(([name, , took]) => name.endsWith(`@${final}`) && took.includes(place)).map(([name]) => name);
  return [
    `#${place + 1}`,
    chip(solution.score, { count: 2, small: true }),
    solution.answer === null ? null : make("span", { class: "answer" }, solution.answer),
    solution.correct === null ? null
      : make("span", { class: solution.correct ? "right" : "mistaken", title: solution.correct ? "correct" : "incorrect" }, solution.correct ? "✓" : "✗"),
    takers.length > 0 ? make("span", { title: `taken by ${takers.join(", ")}`, "aria-label": `taken by ${takers.join(", ")}` }, "★") : null,
  ];
}

function chooseSolution(place, focus = false) {
  open.solution = place;
  open.chain = 0;
  const scroll = document.getElementById("main").scrollTop;
  showProblem();
  document.getElementById("main").scrollTop = scroll;
  if (focus) pane.querySelector('[aria-label="Solutions"] [aria-selected="true"]')?.focus({ preventScroll: true });
  remember();
}

function showSolution() {
  const solution = open.problem.solutions[open.solution];
  const place = document.getElementById("solution");
  if (solution === undefined) {
    place.replaceChildren(make("p", { class: "note" }, `There is no solution of this problem${open.problem.error === null ? "" : `: ${open.problem.error}`}.`));
    return;
  }
  const alone = solution.chains.length === 0;
  place.replaceChildren(...[
    verdictLine(solution),
    solution.error !== null && make("p", { class: "note" }, `Not judged: ${solution.error}`),
    make("div", { class: alone ? "pane single" : "pane" },
      make("div", {}, make("h3", {}, alone ? "Steps" : "Steps, and what each chain says of them"),
        make("ol", { class: "steps", role: "list" }, ...solution.steps.map((text, step) => stepItem(solution, text, step)))),
      !alone && make("div", { class: "chains", id: "chains" })),
  ].filter(Boolean));
  if (!alone) showChains();
}

function verdictLine(solution) {
  const pieces = [];
  if (solution.verdict !== null) {
    pieces.push(make("span", {}, "P(correct) ", chip(solution.verdict)), make("b", {}, `Verdict: ${finding(solution.predicted)}`));
  }
  if (solution.score !== null && solution.verdict !== null && Math.abs(solution.score - solution.verdict) > 1e-4) {
    pieces.push(make("span", { class: "name" }, "ranked by ", chip(solution.score)));
  }
  if (solution.truth !== null) pieces.push(make("span", {}, `Truth: ${finding(solution.truth)}`));
  else if (solution.correct !== null) pieces.push(make("span", {}, solution.correct ? "The answer is right" : "The answer is wrong"));
  if (solution.verdict !== null && solution.correct !== null) {
    pieces.push(make("span", { class: solution.wrong ? "mistaken" : "right" }, solution.wrong ? "✗ wrong verdict" : "✓ right verdict"));
  }
  if (solution.chains.length > 1) {
    const all = solution.agreeing === solution.chains.length;
    pieces.push(make("span", { class: all ? "name" : "flagged" }, agreement(solution)));
  }
  if (solution.tokens !== null) pieces.push(make("span", { class: "name" }, `solution of ${counted(solution.tokens, "token")}`));
  if (isCut(solution.finish)) pieces.push(make("span", { class: "flagged" }, "the solution was cut off"));
  return make("p", { class: "verdict" }, ...pieces);
}

function agreement({ agreeing, chains }) {
  if (agreeing === chains.length) return `all ${chains.length} chains agree`;
  return agreeing === 1 ? "no two chains agree" : `${agreeing} of ${chains.length} chains agree`;
}

const isCut = (finish) => finish === "length" || finish === "context";

const MEAN = "mean over the chains; one that stopped at an earlier error counts as 0";

function stepItem(solution, text, step) {
  const score = solution.scores[step] ?? null;
  const first = solution.labels.indexOf(0);
  const behind = first >= 0 && step > first && score === null;
  const forced = solution.chains.filter((chain) => chain.forced.includes(step)).length;
  return make("li", { class: `step ${scoreClass(score)}${behind ? " behind" : ""}`, id: `step-${step}`, tabindex: -1 },
    make("div", { class: "step-head" },
      make("span", {}, `Step ${step + 1}`),
      score !== null && chip(score, { sign: [" ✗", " ✓"][solution.labels[step]] ?? "", title: solution.chains.length > 1 ? MEAN : null }),
      step === first && make("span", { class: "flagged" }, "first error by the verdict"),
      step === solution.truth && make("span", { class: "true-error" }, "◆ true first error"),
      behind && make("span", {}, "behind the error, not measured"),
      forced > 0 && make("span", { title: "chains that had not judged this step by themselves, and were made to" },
        solution.chains.length === 1 ? "forced" : `forced in ${forced} of ${solution.chains.length}`),
      solution.chains.length > 0 && make("span", { class: "dots" }, ...solution.chains.map((chain, number) => dot(chain, number, step)))),
    make("div", { class: "step-text", dir: "auto" }, ...rich(text, open.problem.formulas)));
}

// What one chain says of one step; leads to the place where it says so.
function dot(chain, number, step) {
  const score = chain.scores[step] ?? null;
  const known = chain.labels.length > 0 && score !== null;
  const forced = chain.forced.includes(step);
  const sign = known ? (chain.labels[step] ? "✓" : "✗") : "·";
  const said = known ? `${chain.labels[step] ? "correct" : "incorrect"}, ${digits(score)}${forced ? ", forced" : ""}` : "nothing measured";
  return make("button", {
    type: "button", class: `dot-button ${scoreClass(score)}${forced ? " forced" : ""}`, "data-chain": number, "data-step": step,
    title: `Chain ${number + 1}: ${said}`, "aria-label": `Step ${step + 1}, chain ${number + 1}: ${said}`,
    onclick: () => { chooseChain(number); goToMark(number, step); },
  }, sign);
}

function showChains() {
  const { chains } = open.problem.solutions[open.solution];
  const word = chains.length > 3 ? "" : "Chain "; // of many the tabs are narrow
  const names = chains.map((chain, number) => [`${word}${number + 1}`, chip(chain.score, { count: 2, small: true })]);
  if (chains.length > 1) names.push(["All"]);
  const shown = open.chain < 0 ? chains.map((_, number) => number) : [open.chain];
  const place = document.getElementById("chains");
  place.className = open.chain < 0 ? "chains all" : "chains";
  place.replaceChildren(
    tabs("Chains", names, open.chain < 0 ? chains.length : open.chain, (number, focus) => chooseChain(number === chains.length ? -1 : number, focus)),
    make("div", { role: "tabpanel", "aria-label": "Chain" }, ...shown.map((number) => chainBox(chains[number], number))));
  for (const button of pane.querySelectorAll(".dot-button")) button.removeAttribute("aria-current");
}

function chooseChain(number, focus = false) {
  open.chain = number;
  showChains();
  if (focus) document.querySelector('#chains [aria-selected="true"]').focus({ preventScroll: true });
  remember();
}

function chainBox(chain, number) {
  const forced = chain.forced.map((step) => make("div", { id: `forced-${number}-${step}`, tabindex: -1 },
    make("button", { type: "button", class: `mark ${chain.labels[step] ? "good" : "bad"} forced-sign`, onclick: () => goToStep(step) },
      `Step ${step + 1}: ${chain.labels[step] ? "✓ correct" : "✗ incorrect"}`),
    ` forced, ${digits(chain.scores[step])}: the chain did not judge it by itself`));
  return make("article", { class: "chain", "aria-label": `Chain ${number + 1}` },
    make("div", { class: "chain-head" }, ...[
      make("b", {}, `Chain ${number + 1}`),
      chain.score !== null && make("span", {}, "P(correct) ", chip(chain.score)),
      make("span", {}, finding(chain.first)),
      !chain.readable && make("span", { class: "flagged" }, "unreadable"),
      chain.contradictory && make("span", { class: "flagged", title: "one of them is wrong" }, "score and labels disagree"),
      isCut(chain.finish) && make("span", { class: "flagged", title: "its end was forced" }, chain.finish === "context" ? "cut off: no room left" : "cut off: its budget was spent"),
      chain.tokens !== null && make("span", {}, counted(chain.tokens, "token")),
    ].filter(Boolean)),
    make("div", { class: "chain-text", dir: "auto", tabindex: 0, "aria-label": "Text of the chain" }, ...chainText(chain, number),
      chain.ending && make("span", { class: "ending" }, chain.ending)),
    forced.length > 0 && make("div", { class: "forced-list" }, ...forced));
}

function chainText(chain, number) {
  return chain.parts.flatMap((part) => {
    if (typeof part === "string") return rich(part, open.problem.formulas, true);
    const [text, label, step] = part;
    const kind = label ? "good" : "bad";
    if (step === null) return [make("span", { class: `mark ${kind} idle`, title: "this verdict does not count: another is in its place" }, text)];
    return [make("button", {
      type: "button", class: `mark ${kind}`, id: `mark-${number}-${step}`, title: `Step ${step + 1}: go to it`,
      "aria-label": `${label ? "Correct" : "Incorrect"}: verdict on step ${step + 1}`, onclick: () => goToStep(step),
    }, `${label ? "✓" : "✗"} `, text)];
  });
}

function goToMark(number, step) {
  const mark = document.getElementById(`mark-${number}-${step}`) ?? document.getElementById(`forced-${number}-${step}`);
  pane.querySelector(`.dot-button[data-chain="${number}"][data-step="${step}"]`)?.setAttribute("aria-current", "true");
  if (mark !== null) point(mark);
}

function goToStep(step) {
  point(document.getElementById(`step-${step}`));
}

function point(element) {
  for (const other of pane.querySelectorAll(".step[aria-current], .mark[aria-current]")) other.removeAttribute("aria-current");
  element.setAttribute("aria-current", "true");
  element.classList.add("here");
  element.addEventListener("animationend", () => element.classList.remove("here"), { once: true });
  element.scrollIntoView({ block: "nearest" });
  element.focus({ preventScroll: true });
}
