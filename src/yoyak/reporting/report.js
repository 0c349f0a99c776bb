// Shows the rows of report.html: all texts go into the page as text, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const controls = document.getElementById("controls");
const list = document.getElementById("list");
const SHARED = ["", "word-shared", "pair-shared"];
const SCORES = ["R-1", "R-2", "R-L", "mean"];
const MEAN = 3;

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function shownName(model) {
  return model.replace(/^baseline\//, "");
}

// Texts: [[characters, how much a reference shares of them, the colour of a tag], …]

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

// A row: its head at once, its body when it comes near the window

function head(row) {
  const link = make("a", { href: `#${encodeURIComponent(row.fname)}` }, row.fname);
  const facts = [`${row.length} characters`];
  if (row.disagreement !== null) facts.push(`disagreement ${row.disagreement.toFixed(0)}`);
  return make("header", {},
    make("h3", {}, link),
    make("span", { className: "topic", lang: "ko" }, row.topic),
    make("span", { className: "quiet" }, facts.join(" · ")));
}

function card(row, model) {
  const { text, scores, faults } = row.summaries[model.name];
  const figures = SCORES.map((name, place) =>
    make("span", { className: name }, `${name} `, make("b", {}, scores[place].toFixed(1))));
  const article = make("article", { className: "card" },
    make("h4", {}, shownName(model.name)),
    paragraph(text.length ? text : [["(empty)", 0]], "summary"),
    make("p", { className: "facts" }, ...figures,
      ...faults.map((fault) => make("span", { className: "fault" }, data.faults[fault]))));
  article.dataset.model = model.name;
  return article;
}

function body(row) {
  const cards = (models) => make("div", { className: "cards" }, ...models.map((model) => card(row, model)));
  const references = row.references.map((text) => paragraph(text, "reference"));
  const baselines = data.models.filter((model) => model.baseline);
  const dialogue = make("details", { className: "dialogue", open: matchMedia("(min-width: 60rem)").matches },
    make("summary", {}, "dialogue"), ...row.dialogue.map((turn) => paragraph(turn, "turn")));
  const right = make("div", {}, make("h4", {}, references.length > 1 ? "references" : "reference"), ...references,
    cards(data.models.filter((model) => !model.baseline)));
  if (baselines.length) {
    right.append(make("details", { className: "baselines" }, make("summary", {}, "baselines"), cards(baselines)));
  }
  return make("div", { className: "body" }, dialogue, right);
}

function fill(article) {
  if (article.classList.contains("filled")) return;
  article.classList.add("filled");
  article.append(body(rows.get(article.dataset.fname)));
  markChosen(article);
}

function markChosen(article) {
  for (const each of article.querySelectorAll(".card")) {
    each.classList.toggle("chosen", each.dataset.model === controls.elements.model.value);
  }
}

const near = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => fill(entry.target)),
  { rootMargin: "600px" });

function article(row) {
  const element = make("article", { className: "row" }, head(row));
  element.dataset.fname = row.fname;
  near.observe(element);
  return element;
}

const rows = new Map(data.rows.map((row) => [row.fname, row]));
const articles = new Map(data.rows.map((row) => [row.fname, article(row)]));
const texts = new Map(data.rows.map((row) => [row.fname, searchable(row)]));

function searchable(row) {
  const summaries = Object.values(row.summaries).map(({ text }) => text);
  return [row.fname, row.topic, ...[...row.dialogue, ...row.references, ...summaries].map(plain)].join("\n").toLowerCase();
}

// Which rows, and in which order

function score(row, model) {
  return row.summaries[model].scores[MEAN];
}

const ORDERS = {
  file: () => 0,
  worst: (model) => (a, b) => score(a, model) - score(b, model),
  best: (model) => (a, b) => score(b, model) - score(a, model),
  disagreement: () => (a, b) => b.disagreement - a.disagreement,
  longest: () => (a, b) => b.length - a.length,
  shortest: () => (a, b) => a.length - b.length,
};

function within(value, from, to) {
  return (from === "" || value >= Number(from)) && (to === "" || value <= Number(to));
}

function isWanted(row, wanted) {
  const { faults } = row.summaries[wanted.model];
  return texts.get(row.fname).includes(wanted.text.trim().normalize("NFC").toLowerCase())
    && row.topic.includes(wanted.topic.trim())
    && (wanted.fault === "" || (wanted.fault === "any" ? faults.length > 0 : faults.includes(wanted.fault)))
    && within(score(row, wanted.model), wanted.scoreFrom, wanted.scoreTo)
    && within(row.disagreement, wanted.disagreementFrom, wanted.disagreementTo)
    && within(row.length, wanted.lengthFrom, wanted.lengthTo);
}

function show() {
  const wanted = Object.fromEntries(new FormData(controls));
  const chosen = data.rows.filter((row) => isWanted(row, wanted));
  if (wanted.order !== "file") chosen.sort(ORDERS[wanted.order](wanted.model));
  list.replaceChildren(...chosen.map((row) => articles.get(row.fname)));
  list.querySelectorAll(".filled").forEach(markChosen);
  document.getElementById("count").textContent = `${chosen.length} of ${data.rows.length} dialogues`;
}

// report.html#dev_17

function goToLinkedRow() {
  const found = articles.get(linkedName());
  for (const each of list.querySelectorAll(".linked")) each.classList.remove("linked");
  if (!found) return;
  if (!found.isConnected) {
    controls.reset();
    show();
  }
  found.classList.add("linked");
  fill(found);
  found.scrollIntoView();
  // Rows above it get their texts now, and push it down.
  requestAnimationFrame(() => requestAnimationFrame(() => found.scrollIntoView()));
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
fault.append(...Object.entries(data.faults).map(([value, name]) => new Option(name, value)));
const topics = [...new Set(data.rows.map((row) => row.topic).filter(Boolean))].sort();
document.getElementById("topics").append(...topics.map((topic) => new Option("", topic)));
const orders = controls.elements.order;
if (data.rows[0].disagreement === null) orders.querySelector("[value=disagreement]").remove();

controls.addEventListener("input", show);
controls.addEventListener("reset", () => setTimeout(show));
controls.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", goToLinkedRow);
show();
goToLinkedRow();
