// What the scripts of these pages share. All texts go into a page as text, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

