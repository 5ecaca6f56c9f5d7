// Addresses, keys, start. #overview, #problems, #p12 (a problem), #p12.2 (a solution), #p12.2.3 (a chain).
const overview = document.getElementById("overview-view");
const keys = document.getElementById("keys");

function route() {
  const problem = /^#p(\d+)(?:\.(\d+))?(?:\.(\d+|all))?$/.exec(location.hash);
  if (problem !== null && Number(problem[1]) >= 1 && Number(problem[1]) <= rows.length) {
    const chain = problem[3] === "all" ? -1 : Number(problem[3] ?? 1) - 1;
    openProblem(Number(problem[1]) - 1, Number(problem[2] ?? 1) - 1, chain);
    return;
  }
  open.at = -1;
  view.current = -1;
  setView(location.hash === "#problems" ? "problems" : "overview");
  draw();
}

function setView(name) {
  document.body.dataset.view = name;
  pane.hidden = name !== "problem";
  overview.hidden = name === "problem";
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.dataset.view === (name === "problem" ? "problems" : name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "problems") {
    draw();
    (list.querySelector("a") ?? scroller).focus({ preventScroll: true });
  }
  if (name !== "problem") document.title = pageTitle;
}

const pageTitle = document.title;

async function openProblem(at, solution, chain) {
  const isSame = open.at === at && open.problem !== null && !pane.hidden;
  open.at = view.current = at;
  draw();
  bringIntoSight(at);
  try {
    const problem = await loadProblem(at);
    if (open.at !== at) return; // another was asked for meanwhile
    open.problem = problem;
    open.solution = Math.min(Math.max(solution, 0), Math.max(problem.solutions.length - 1, 0));
    const chains = problem.solutions[open.solution]?.chains.length ?? 0;
    open.chain = chain < 0 && chains > 1 ? -1 : Math.min(Math.max(chain, 0), Math.max(chains - 1, 0));
    document.title = `${at + 1} · ${pageTitle}`;
    setView("problem");
    showProblem();
    if (!isSame) document.getElementById("main").scrollTop = 0;
  } catch (error) {
    fail(error);
  }
}

// The address follows the solution and the chain; going back leaves the problem.
function remember() {
  const more = open.chain < 0 ? `.${open.solution + 1}.all` : open.chain > 0 ? `.${open.solution + 1}.${open.chain + 1}`
    : open.solution > 0 ? `.${open.solution + 1}` : "";
  history.replaceState(null, "", `#p${open.at + 1}${more}`);
}

function neighbour(step) {
  const place = view.shown.indexOf(view.current);
  if (place < 0) return step > 0 && view.shown.length > 0 ? view.shown[0] : null;
  return view.shown[place + step] ?? null;
}

function turn(step) {
  const at = neighbour(step);
  if (at !== null) location.hash = `#p${at + 1}`;
}

function turnSolution(step) {
  const place = open.solution + step;
  if (open.at >= 0 && open.problem?.solutions[place] !== undefined) chooseSolution(place);
}

function turnChain(step) {
  const chains = open.problem?.solutions[open.solution]?.chains.length ?? 0;
  const place = Math.max(open.chain, 0) + step;
  if (open.at >= 0 && place >= 0 && place < chains) chooseChain(place);
}

const KEYS = {
  j: () => turn(1), k: () => turn(-1), ArrowLeft: () => turnSolution(-1), ArrowRight: () => turnSolution(1),
  "[": () => turnChain(-1), "]": () => turnChain(1), o: () => { location.hash = "#overview"; },
  p: () => { location.hash = "#problems"; }, "/": focusSearch, "?": () => keys.showModal(),
};

function focusSearch() {
  if (getComputedStyle(searchBox.closest("aside")).display === "none") location.hash = "#problems";
  requestAnimationFrame(() => { searchBox.focus(); searchBox.select(); });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || keys.open) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape" && event.target === searchBox) searchBox.blur();
  if (typing || KEYS[event.key] === undefined) return;
  event.preventDefault();
  KEYS[event.key]();
}

function fail(error) {
  const note = document.getElementById("too-old");
  note.textContent = error.message;
  note.hidden = false;
  setView("overview");
}

document.body.classList.add("scripted");
document.getElementById("plain").remove();
document.getElementById("keys-open").addEventListener("click", () => keys.showModal());
document.getElementById("keys-close").addEventListener("click", () => keys.close());
document.getElementById("scale").append(...Array.from({ length: 11 }, (_, step) => chip(step / 10, { count: 1, small: true })));
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", route);
buildFilters();
refresh();
route();
performance.mark("thinkprm-ready");
