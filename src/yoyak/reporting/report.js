// Shows the rows of report.html.

// `data` has a list a figure, in the order of the rows: a row is its place in them.
const controls = document.getElementById("controls");
const list = document.getElementById("list");
const SHARED = ["", "word-shared", "pair-shared"];
const SCORES = ["R-1", "R-2", "R-L", "mean"];
const ROWS = "#-rows?";
const PAGE = 500;
const MOST_TOPICS = 500;

function shownName(model) {
  return model.replace(/^baseline\//, "");
}

// Texts of the rows, in blocks: [{dialogue, references, summaries: {model: {text, scores, faults}}}, …]

const blocks = document.getElementsByClassName("block");
const MOST_BLOCKS = 40;
const read = new Map();

async function unpacked(number) {
  const bytes = Uint8Array.from(atob(blocks[number].textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

// The latest of them are kept: all may be more than a window can hold.
function block(number) {
  const found = read.get(number) ?? unpacked(number);
  read.delete(number);
  read.set(number, found);
  if (read.size > MOST_BLOCKS) read.delete(read.keys().next().value);
  return found;
}

async function textsOf(place) {
  return (await block(Math.floor(place / data.block)))[place % data.block];
}

// A text: [[characters, how much a reference shares of them, the colour of a tag], …]

function plain(pieces) {
  return pieces.map(([text]) => text).join("");
}

function tag(text, colour) {
  const hash = () => make("i", {}, "#");
  return make("span", { className: `tag ${colour}` }, hash(), text.slice(1, -1), hash());
}

function piece([text, shared, colour]) {
  const shown = colour ? tag(text, colour) : text;
  return shared ? make("mark", { className: SHARED[shared] }, shown) : shown;
}

// A tag and the particle after it stay on one line.
function words(pieces) {
  const shown = [];
  for (const [text, shared, colour] of pieces) {
    const word = shown.at(-1);
    const particle = word?.className === "word" && word.childNodes.length === 1 ? text.match(/^\p{L}{0,4}/u)[0] : "";
    if (particle) word.append(piece([particle, shared]));
    if (colour) shown.push(make("span", { className: "word" }, piece([text, shared, colour])));
    else if (text.length > particle.length) shown.push(piece([text.slice(particle.length), shared]));
  }
  return shown;
}

function paragraph(pieces, className) {
  return make("p", { className, lang: "ko" }, ...words(pieces));
}

// A group of rows: some have names in words, others are what they are named after.
function groupName(name) {
  const characters = name.match(/^(\d+) to (\d+) characters$/);
  return characters ? t("{low} to {high} characters", { low: characters[1], high: characters[2] }) : t(name);
}

// A row: its head at once, its body when it comes near the window

function head(place) {
  const name = data.fname[place];
  const facts = [t("{count} characters", { count: data.length[place] })];
  if (data.disagreement[place] !== null) facts.push(t("disagreement {value}", { value: data.disagreement[place].toFixed(0) }));
  return make("header", {},
    make("h3", {}, make("a", { href: `#${encodeURIComponent(name)}` }, name)),
    make("span", { className: "topic", lang: "ko" }, data.topic[place]),
    make("span", { className: "quiet" }, facts.join(" · ")));
}

function card(row, model) {
  const { text, scores, faults } = row.summaries[model.name];
  const figures = SCORES.map((name, place) =>
    make("span", { className: name }, `${name === "mean" ? t("mean") : name} `, make("b", {}, scores[place].toFixed(1))));
  const article = make("article", { className: "card" },
    make("h4", {}, shownName(model.name)),
    paragraph(text.length ? text : [[t("(empty)"), 0]], "summary"),
    make("p", { className: "facts" }, ...figures,
      ...faults.map((fault) => make("a", {
        className: "fault", href: linkToRows({ model: model.name, fault }), title: t("all rows of {model} with this fault", { model: model.name }),
      }, t(data.faults[fault])))));
  article.dataset.model = model.name;
  return article;
}

function body(row) {
  const cards = (models) => make("div", { className: "cards" }, ...models.map((model) => card(row, model)));
  const references = row.references.map((text) => paragraph(text, "reference"));
  const baselines = data.models.filter((model) => model.baseline);
  const dialogue = make("details", { className: "dialogue", open: matchMedia("(min-width: 60rem)").matches },
    make("summary", {}, t("dialogue")), ...row.dialogue.map((turn) => paragraph(turn, "turn")));
  const right = make("div", {}, make("h4", {}, references.length > 1 ? t("references") : t("reference")), ...references,
    cards(data.models.filter((model) => !model.baseline)));
  if (baselines.length) {
    right.append(make("details", { className: "baselines" }, make("summary", {}, t("baselines")), cards(baselines)));
  }
  return make("div", { className: "body" }, dialogue, right);
}

async function fill(article) {
  if (article.classList.contains("filled")) return;
  article.classList.add("filled");
  article.append(body(await textsOf(Number(article.dataset.place))));
  markChosen(article);
}

function markChosen(article) {
  for (const each of article.querySelectorAll(".card")) {
    const isChosen = each.dataset.model === controls.elements.model.value;
    each.classList.toggle("chosen", isChosen);
    if (isChosen) each.closest("details")?.setAttribute("open", "");
  }
}

const near = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => fill(entry.target)),
  { rootMargin: "600px" });

function article(place) {
  const element = make("article", { className: "row" }, head(place));
  element.dataset.place = place;
  near.observe(element);
  return element;
}

const placeOf = new Map(data.fname.map((name, place) => [name, place]));

// Which rows, and in which order

const ORDERS = {
  worst: (model) => (a, b) => data.mean[model][a] - data.mean[model][b],
  best: (model) => (a, b) => data.mean[model][b] - data.mean[model][a],
  disagreement: () => (a, b) => data.disagreement[b] - data.disagreement[a],
  longest: () => (a, b) => data.length[b] - data.length[a],
  shortest: () => (a, b) => data.length[a] - data.length[b],
};

function within(value, from, to) {
  return (from === "" || value >= Number(from)) && (to === "" || value <= Number(to));
}

const bitOf = new Map(Object.keys(data.faults).map((name, bit) => [name, 1 << bit]));

function hasFault(faulty, fault) {
  return fault === "" || (fault === "any" ? faulty > 0 : (faulty & bitOf.get(fault)) > 0);
}

// `topic: 회의`: one of the groups of rows, or of the model's summaries by their length.
function isIn(place, group, model) {
  if (group === "") return true;
  const [by, name] = [group.slice(0, group.indexOf(": ")), group.slice(group.indexOf(": ") + 2)];
  const { names, of } = by === "summary_length" ? data.lengths[model] : data.groups[by];
  return names[of[place]] === name;
}

function isWanted(place, wanted) {
  return isIn(place, wanted.group, wanted.model)
    && data.topic[place].includes(wanted.topic.trim())
    && hasFault(data.faulty[wanted.model][place], wanted.fault)
    && within(data.mean[wanted.model][place], wanted.scoreFrom, wanted.scoreTo)
    && within(data.disagreement[place], wanted.disagreementFrom, wanted.disagreementTo)
    && within(data.length[place], wanted.lengthFrom, wanted.lengthTo);
}

function searchable(place, row) {
  const summaries = Object.values(row.summaries).map(({ text }) => text);
  const texts = [...row.dialogue, ...row.references, ...summaries].map(plain);
  return [data.fname[place], data.topic[place], ...texts].join("\n").toLowerCase();
}

// Those of the places whose texts have the words; null once something else is asked for.
async function search(places, words, isAsked) {
  const found = [];
  for (const [done, place] of places.entries()) {
    if (searchable(place, await textsOf(place)).includes(words)) found.push(place);
    if (done % data.block) continue;
    count.textContent = t("searching, {percent} %", { percent: Math.floor((100 * done) / places.length) });
    // A moment for the window, which may have been asked for something else.
    await new Promise((ready) => setTimeout(ready));
    if (!isAsked()) return null;
  }
  return found;
}

const count = document.getElementById("count");
const everyPlace = data.fname.map((_, place) => place);
let chosen = [];
let asked = 0;

async function choose() {
  const turn = ++asked;
  const wanted = Object.fromEntries(new FormData(controls));
  const words = wanted.text.trim().normalize("NFC").toLowerCase();
  let places = everyPlace.filter((place) => isWanted(place, wanted));
  list.ariaBusy = "true";
  if (words) places = await search(places, words, () => turn === asked);
  if (places === null) return;
  chosen = wanted.order === "file" ? places : places.sort(ORDERS[wanted.order](wanted.model));
  count.textContent = t("{count} of {all} dialogues", { count: chosen.length, all: data.fname.length });
  show(0);
}

function show(page) {
  const shown = chosen.slice(page * PAGE, (page + 1) * PAGE);
  const there = new Map([...list.children].map((element) => [Number(element.dataset.place), element]));
  list.replaceChildren(...shown.map((place) => there.get(place) ?? article(place)));
  list.querySelectorAll(".filled").forEach(markChosen);
  for (const element of pagers) element.replaceChildren(...links(page, Math.ceil(chosen.length / PAGE)));
  for (const element of pagers) element.hidden = chosen.length <= PAGE;
  list.ariaBusy = "false";
}

const pagers = document.querySelectorAll(".pages");

function links(page, pages) {
  const link = (name, to) => {
    const button = make("button", { type: "button", disabled: to < 0 || to >= pages || to === page }, name);
    button.addEventListener("click", () => {
      show(to);
      document.getElementById("-rows").scrollIntoView();
    });
    return button;
  };
  const told = make("span", {}, t("page {page} of {pages}", { page: page + 1, pages }));
  return [link(t("first"), 0), link(t("previous"), page - 1), told, link(t("next"), page + 1), link(t("last"), pages - 1)];
}

// report.html#-rows?model=…&fault=…: some rows

async function goToLinkedRows() {
  const wanted = new URLSearchParams(location.hash.slice(ROWS.length));
  isOurs = true;
  controls.reset();
  isOurs = false;
  for (const [name, value] of wanted) {
    if (controls.elements[name]) controls.elements[name].value = value;
  }
  // A link into the report of another run may name what this one has not.
  for (const field of controls.querySelectorAll("select")) field.selectedIndex = Math.max(0, field.selectedIndex);
  for (const each of list.querySelectorAll(".linked")) each.classList.remove("linked");
  await choose();
  document.getElementById("-rows").scrollIntoView();
}

function linkToRows(wanted) {
  return `${ROWS}${new URLSearchParams({ model: controls.elements.model.value, ...wanted })}`;
}

function goToLinked() {
  return location.hash.startsWith(ROWS) ? goToLinkedRows() : goToLinkedRow();
}

// report.html#dev_17

async function goToLinkedRow() {
  for (const each of list.querySelectorAll(".linked")) each.classList.remove("linked");
  const place = placeOf.get(linkedName());
  if (place === undefined) return;
  if (!chosen.includes(place)) {
    isOurs = true;
    controls.reset();
    isOurs = false;
    await choose();
  }
  const element = () => list.querySelector(`[data-place="${place}"]`);
  if (!element()) show(Math.floor(chosen.indexOf(place) / PAGE));
  element().classList.add("linked");
  await fill(element());
  element().scrollIntoView();
  // Rows above it get their texts now, and push it down.
  requestAnimationFrame(() => requestAnimationFrame(() => element()?.scrollIntoView()));
}

function linkedName() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

// Start

const { model, fault } = controls.elements;
model.append(...data.models.map(({ name }) => new Option(shownName(name), name)));
fault.append(...Object.entries(data.faults).map(([value, name]) => new Option(t(name), value)));
for (const [by, { names }] of [...Object.entries(data.groups), ["summary_length", Object.values(data.lengths)[0]]]) {
  const options = [...names].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  controls.elements.group.append(Object.assign(
    make("optgroup", {}, ...options.map((name) => new Option(groupName(name), `${by}: ${name}`))), { label: t(data.by[by]) }));
}
const rowsOf = new Map();
for (const topic of data.topic) rowsOf.set(topic, (rowsOf.get(topic) ?? 0) + 1);
rowsOf.delete("");
const topics = [...rowsOf.keys()].sort((a, b) => rowsOf.get(b) - rowsOf.get(a)).slice(0, MOST_TOPICS).sort();
document.getElementById("topics").append(...topics.map((topic) => new Option("", topic)));
const orders = controls.elements.order;
if (data.disagreement[0] === null) orders.querySelector("[value=disagreement]").remove();

// Whether the script itself resets the controls, and shows what comes of it.
let isOurs = false;
controls.addEventListener("input", choose);
controls.addEventListener("reset", () => isOurs || setTimeout(choose));
controls.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", goToLinked);
choose().then(goToLinked);
