// Shows the runs of experiments.html: a run is its place in the lists of `data`.

const controls = document.getElementById("controls");
const count = document.getElementById("count");
const told = document.getElementById("told");
const missing = document.getElementById("missing");
const places = data.runs.map((_, place) => place);
const groupOf = new Map(data.groups.flatMap((group) => group.runs.map((place) => [place, group])));
const MOST_PAIRED = 25;
const NOTHING = "–";

// Differences: of all pairs of a group by a score there are the ends of the interval, in hundredths

function integers(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 2 }, (_, at) => view.getInt16(2 * at, true));
}

for (const group of data.groups) {
  for (const compared of Object.values(group.compared)) {
    compared.at = new Map(compared.runs.map((place, at) => [place, at]));
    compared.low = integers(compared.low);
    compared.high = integers(compared.high);
  }
}

function comparedBy(score, place) {
  return groupOf.get(place)?.compared[score];
}

// Of `place` less `other`; null where they are not comparable, or one of them has no such score of rows.
function difference(score, place, other) {
  const compared = comparedBy(score, place);
  const [a, b] = [compared?.at.get(place), compared?.at.get(other)];
  if (a === undefined || b === undefined || a === b) return null;
  const [first, second] = a < b ? [a, b] : [b, a];
  const size = compared.runs.length;
  const pair = first * size - (first * (first + 1)) / 2 + second - first - 1;
  const ends = [compared.low[pair] / 100, compared.high[pair] / 100];
  const [low, high] = a < b ? ends : [-ends[1], -ends[0]];
  return { mean: compared.means[a] - compared.means[b], low, high, word: word(low, high) };
}

function word(low, high) {
  if (low === 0 && high === 0) return "same";
  return low > 0 ? "better" : high < 0 ? "worse" : "noise";
}

function whyNot(score, place, other) {
  if (place === other) return ["compared with", ""];
  if (!isRead(place)) return ["not read", data.runs[place].told];
  if (!data.scores[score][place]) return ["", ""];
  const why = [place, other].map((each) => data.runs[each].told).filter(Boolean);
  if (!groupOf.has(place) || !groupOf.has(other)) return ["no rows", why.join("; ")];
  if (groupOf.get(place) !== groupOf.get(other)) {
    return ["not comparable", [place, other].map((each) => `${data.runs[each].name}: ${described(each)}`).join("; ")];
  }
  return data.scores[score][other] ? ["no rows", why.join("; ")] : ["", ""];
}

function described(place) {
  const { rows, rule } = groupOf.get(place);
  return t("{rows} rows, {rule}", { rows, rule });
}

function signed(value) {
  return `${value < 0 ? "" : "+"}${withMinus(value, 2)}`;
}

function withMinus(value, digits) {
  return value.toFixed(digits).replace("-", "−");
}

function interval(ends, digits = 1) {
  return `[${ends.map((end) => withMinus(end, digits)).join(", ")}]`;
}

// Columns of the table: a title, what a cell shows, and by what it sorts

function shownValue(value) {
  if (value === undefined) return NOTHING;
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  return typeof value === "string" ? value : JSON.stringify(value);
}

function cut(text, className) {
  return make("span", { className, title: text }, text);
}

function scoreColumn(score) {
  return {
    id: `score ${score}`,
    title: score,
    descending: true,
    value: (place) => data.scores[score][place]?.[0],
    cell: (place) => {
      const found = data.scores[score][place];
      return found ? [found[0].toFixed(2), " ", make("small", {}, interval(found.slice(1)))] : [];
    },
  };
}

function paramColumn(key) {
  const { values, of } = data.params[key];
  return { id: `param ${key}`, title: key, value: (place) => values[of[place]],
    cell: (place) => [cut(shownValue(values[of[place]]), "value")] };
}

function differenceColumn({ score, baseline }) {
  return {
    id: "difference",
    title: t("difference"),
    descending: true,
    value: (place) => difference(score, place, baseline)?.mean,
    cell: (place) => {
      const found = difference(score, place, baseline);
      return found ? [signed(found.mean), " ", make("small", {}, interval([found.low, found.high], 2))] : [];
    },
  };
}

function wordColumn({ score, baseline }) {
  const shown = (place) => {
    const found = difference(score, place, baseline);
    return found ? [found.word, ""] : whyNot(score, place, baseline);
  };
  return { id: "word", title: t("that is"), value: (place) => shown(place)[0] || undefined,
    cell: (place) => {
      const [text, title] = shown(place);
      const className = ["better", "worse"].includes(text) ? text : ["noise", "same"].includes(text) ? "noise" : "quiet";
      return text ? [make("span", { className, title }, t(text))] : [];
    } };
}

const NAME = { id: "name", title: t("run"), value: (place) => data.runs[place].name,
  cell: (place) => [cut(data.runs[place].name, "name")] };
const GROUP = { id: "group", title: t("scored by"), value: (place) => (groupOf.has(place) ? data.groups.indexOf(groupOf.get(place)) : undefined),
  cell: (place) => (groupOf.has(place) ? [cut(described(place), "value")] : []) };
const DATE = { id: "date", title: t("date, UTC"), descending: true, value: (place) => data.runs[place].date || undefined,
  cell: (place) => [data.runs[place].date.replace("T", " ")] };
const COMMIT = { id: "commit", title: t("commit"), value: (place) => data.runs[place].commit || undefined,
  cell: (place) => [data.runs[place].commit] };
const BEGAN = { id: "began_at", title: t("began at"), value: (place) => data.runs[place].began_at || undefined,
  cell: (place) => [data.runs[place].began_at] };

function columns(shown, asked) {
  const differs = (key) => new Set(shown.filter(isRead).map((place) => data.params[key].of[place])).size > 1;
  const scores = Object.keys(data.scores).filter((score) => shown.some((place) => data.scores[score][place]));
  return [
    NAME, differenceColumn(asked), wordColumn(asked), ...scores.map(scoreColumn),
    ...Object.keys(data.params).filter(differs).map(paramColumn),
    ...(data.groups.length > 1 ? [GROUP] : []),
    DATE, COMMIT, BEGAN,
  ];
}

function isRead(place) {
  return Object.values(data.scores).some((scores) => scores[place]);
}

// Which runs, and in which order

let order = null;

// What a run does not have comes last, whichever way it is sorted.
function compareBy({ value }, descending) {
  return (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const numbers = typeof x === "number" && typeof y === "number";
    const found = numbers ? x - y : shownValue(x).localeCompare(shownValue(y), undefined, { numeric: true });
    return descending ? -found : found;
  };
}

function searchable(place) {
  const params = Object.entries(data.params).map(([key, { values, of }]) => `${key}: ${shownValue(values[of[place]])}`);
  return [data.runs[place].name, data.runs[place].commit, ...params].join("\n").toLowerCase();
}

function wanted(asked) {
  const words = asked.text.trim().toLowerCase();
  return places.filter((place) => (!asked.kind || data.runs[place].kind === asked.kind)
    && (!words || searchable(place).includes(words)));
}

function asked() {
  const { baseline, ...others } = Object.fromEntries(new FormData(controls));
  return { ...others, baseline: Number(baseline) };
}

function show() {
  const now = asked();
  const shown = wanted(now);
  const all = columns(shown, now);
  const chosen = all.find(({ id }) => id === order?.id) ?? all.find(({ id }) => id === `score ${now.score}`);
  const descending = order?.id === chosen?.id ? order.descending : true;
  const sorted = chosen ? [...shown].sort(compareBy(chosen, descending)) : shown;
  count.textContent = t("{count} of {all} runs", { count: shown.length, all: places.length });
  showTable(sorted, all, chosen, descending, now);
  const alike = shown
    .filter((place) => comparedBy(now.score, now.baseline)?.at.has(place))
    .sort((a, b) => data.scores[now.score][b][0] - data.scores[now.score][a][0]);
  showMissing(shown);
  tell(now);
  showPicture(alike, now);
  showMatrix(alike, now);
}

// The table

function showTable(sorted, all, chosen, descending, now) {
  const table = document.querySelector(".runs");
  const focused = document.activeElement?.closest(".runs th")?.dataset.id;
  table.tHead.replaceChildren(make("tr", {}, ...all.map((column) => headCell(column, chosen, descending))));
  table.tBodies[0].replaceChildren(...sorted.map((place) => {
    const cells = all.map((column, at) =>
      make(at ? "td" : "th", at ? {} : { scope: "row" }, ...column.cell(place)));
    const line = make("tr", { className: place === now.baseline ? "compared" : "" }, ...cells);
    line.dataset.run = data.runs[place].name;
    return line;
  }));
  if (focused) [...table.querySelectorAll("th")].find((cell) => cell.dataset.id === focused)?.querySelector("button").focus();
}

function headCell(column, chosen, descending) {
  const cell = make("th", { scope: "col" });
  cell.dataset.id = column.id;
  if (column === chosen) cell.ariaSort = descending ? "descending" : "ascending";
  const button = make("button", { type: "button" }, column.title);
  button.addEventListener("click", () => {
    order = { id: column.id, descending: column === chosen ? !descending : (column.descending ?? false) };
    show();
  });
  cell.append(button);
  return cell;
}

function showMissing(shown) {
  const lacking = shown.filter((place) => data.runs[place].told);
  missing.hidden = !lacking.length;
  missing.querySelector("summary").textContent = t("runs of which something is missing: {count}", { count: lacking.length });
  missing.querySelector("ul").replaceChildren(...lacking.map((place) => make("li", {}, data.runs[place].told)));
}

// What the numbers mean

function tell({ score, baseline }) {
  const compared = comparedBy(score, baseline);
  if (!compared?.at.has(baseline)) {
    told.textContent = t("The rows of {run} are not known here by the score of {score}, or no other run has the same rows, scored in the same way: there is nothing to compare it with.",
      { run: data.runs[baseline].name, score });
    return;
  }
  const size = compared.runs.length;
  const means = compared.means;
  const best = means.indexOf(Math.max(...means));
  const lead = means[best] - means.reduce((sum, mean) => sum + mean, 0) / size;
  const group = groupOf.get(baseline);
  told.textContent = t("{size} runs have {rows} rows in common, scored by {rule}: {comparisons} comparisons with {run}, {pairs} pairs in all. Of comparisons between equally good runs about one in 20 would not be called noise. The best of {size} equally good ones would seem {luck} better than their mean by chance; the best here, {best}, is {lead} better than the mean.", {
    size,
    rows: group.rows,
    rule: group.rule,
    comparisons: size - 1,
    run: data.runs[baseline].name,
    pairs: (size * (size - 1)) / 2,
    luck: compared.luck.toFixed(2),
    best: data.runs[compared.runs[best]].name,
    lead: lead.toFixed(2),
  });
}

// The picture

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function showPicture(alike, { score, baseline }) {
  const scores = alike.map((place) => data.scores[score][place]);
  const [low, high] = [Math.min(...scores.map((each) => each[1])), Math.max(...scores.map((each) => each[2]))];
  const x = (value) => `${4 + (92 * (value - low)) / (high - low || 1)}%`;
  const lines = alike.map((place, at) => {
    const [mean, ...ends] = scores[at];
    const picture = drawn("svg", { "aria-hidden": "true" });
    const middle = { y1: "50%", y2: "50%" };
    const line = data.scores[score][baseline];
    picture.append(
      drawn("line", { class: "zero", x1: x(line[0]), x2: x(line[0]), y1: "0", y2: "100%" }),
      drawn("line", { x1: x(ends[0]), x2: x(ends[1]), ...middle }),
      drawn("circle", { cx: x(mean), cy: "50%", r: "4" }));
    return make("tr", { className: place === baseline ? "compared" : "" },
      make("th", { scope: "row" }, cut(data.runs[place].name, "name")), make("td", {}, picture),
      make("td", {}, mean.toFixed(2), " ", make("small", { className: "quiet" }, interval(ends))));
  });
  const table = make("table", { className: "plot" }, make("tbody", {}, ...lines));
  document.querySelector("#picture .scroll").replaceChildren(...(alike.length ? [table] : []));
}

// All pairs

let allPairs = false;
const more = document.getElementById("more");
more.querySelector("button").addEventListener("click", () => {
  allPairs = true;
  show();
});

function showMatrix(alike, { score }) {
  const cutOff = !allPairs && alike.length > MOST_PAIRED;
  const shown = cutOff ? alike.slice(0, MOST_PAIRED) : alike;
  more.hidden = !cutOff;
  if (cutOff) more.firstElementChild.textContent = t("Best {shown}; show all {all}", { shown: MOST_PAIRED, all: alike.length });
  const dense = shown.length > MOST_PAIRED;
  const differences = shown.map((place) => shown.map((other) => difference(score, place, other)));
  const largest = Math.max(0.01, ...differences.flat().map((found) => Math.abs(found?.mean ?? 0)));
  const head = make("tr", {}, make("td"), ...shown.map((place, at) => {
    const button = make("button", { type: "button", title: t("compare with {run}", { run: data.runs[place].name }) }, String(at + 1));
    button.addEventListener("click", () => {
      controls.elements.baseline.value = String(place);
      show();
    });
    return make("th", { scope: "col" }, button);
  }));
  const lines = shown.map((place, at) => make("tr", {},
    make("th", { scope: "row" }, `${at + 1} `, cut(data.runs[place].name, "name")),
    ...differences[at].map((found, other) => pairCell(found, dense, largest, place, shown[other]))));
  const table = make("table", { className: dense ? "matrix dense" : "matrix" },
    make("thead", {}, head), make("tbody", {}, ...lines));
  const focused = [...document.querySelectorAll("#matrix thead button")].indexOf(document.activeElement);
  document.querySelector("#matrix .scroll").replaceChildren(...(shown.length ? [table] : []));
  table.querySelectorAll("thead button")[focused]?.focus();
}

function pairCell(found, dense, largest, place, other) {
  if (!found) return make("td");
  const kind = { better: "up", worse: "down" }[found.word] ?? "none";
  const names = t("{run} less {other}", { run: data.runs[place].name, other: data.runs[other].name });
  const cell = make("td", {
    className: kind,
    title: `${names}: ${signed(found.mean)} ${interval([found.low, found.high], 2)}, ${t(found.word)}`,
  }, dense ? "" : signed(found.mean));
  cell.style.setProperty("--part", (15 + (60 * Math.abs(found.mean)) / largest).toFixed(0));
  return cell;
}

// Start

const { baseline, score } = controls.elements;
baseline.append(...places.map((place) => new Option(data.runs[place].name, place)));
score.append(...Object.keys(data.scores).map((name) => new Option(name, name)));
// The branch's latest run, as long as there is something to compare it with.
const first = Object.keys(data.scores)[0];
const comparable = places.filter((place) => comparedBy(first, place)?.at.has(place));
const begun = comparable.find((place) => data.runs[place].kind === "commit") ?? comparable[0] ?? 0;
baseline.value = String(begun);
controls.addEventListener("input", show);
controls.addEventListener("submit", (event) => event.preventDefault());
show();
