// What the scripts of these pages share. All texts of data go into a page as text, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const korean = JSON.parse(document.getElementById("korean").textContent);

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// The language: page.html?lang=ko, else the one that the page was made in, else the reader's own.

const LANGUAGES = ["en", "ko"];
const asksFor = new URLSearchParams(location.search).get("lang") ?? document.documentElement.dataset.first;
const language = LANGUAGES.includes(asksFor) ? asksFor : navigator.language.startsWith("ko") ? "ko" : "en";

// A message, its values put in.
function t(message, values = {}) {
  const text = language === "ko" ? korean[message] ?? message : message;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

document.documentElement.lang = language;
if (language === "ko") {
  // Written by html.py: its values are escaped.
  for (const element of document.querySelectorAll("[data-ko]")) element.innerHTML = element.dataset.ko;
  for (const name of ["placeholder", "title", "aria-label"]) {
    for (const element of document.querySelectorAll(`[data-ko-${name}]`)) {
      element.setAttribute(name, element.getAttribute(`data-ko-${name}`));
    }
  }
}

const other = document.getElementById("language");
other.textContent = language === "ko" ? "English" : "한국어";
other.lang = language === "ko" ? "en" : "ko";
other.addEventListener("click", () => {
  location.href = `?lang=${language === "ko" ? "en" : "ko"}${location.hash}`;
});

