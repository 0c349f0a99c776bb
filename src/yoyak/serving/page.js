// Switches the page's language: what is our own HTML has both, and page.css shows one of them.
const KEPT = "yoyak-language";

function show(language) {
  document.documentElement.dataset.language = language;
  for (const [selector, label] of Object.entries(GIVEN.labels[language])) {
    const found = document.querySelector(selector);
    if (found) replaceText(found, label);
  }
}

// Gradio keeps its own nodes: only what they say is changed.
function replaceText(element, text) {
  const texts = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (texts.length) texts[0].data = text;
  else if (element.firstElementChild) replaceText(element.firstElementChild, text);
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("#language")) return;
  const language = document.documentElement.dataset.language === "ko" ? "en" : "ko";
  localStorage.setItem(KEPT, language);
  show(language);
});

show(GIVEN.first ?? localStorage.getItem(KEPT) ?? "ko");
