"use strict";
// Whatever is called by somebody else (classes, files, runs) goes into the page as text, never as markup.
const byId = (id) => document.getElementById(id);
const chosen = { index: null, file: null };
let first = 0;

async function ask(address, options = {}) {
  const headers = { "x-autolora": "1" };
  let answer;
  try {
    answer = await fetch(address, { ...options, headers });
  } catch {
    throw new Error("no answer: is autolora serve still running?");
  }
  const content = await answer.json().catch(() => ({ error: `it failed (${answer.status}); the terminal says more` }));
  if (!answer.ok) throw new Error(content.error || `it failed (${answer.status})`);
  return content;
}

function say(text, error = false) {
  byId("status").textContent = text;
  byId("status").className = error ? "error" : "soft";
}

function picture(image, address) {
  image.addEventListener("load", () => image.classList.toggle("small-picture", image.naturalWidth <= 96));
  image.src = address;
}

async function list() {
  const { images, of } = await ask(`/images?first=${first}`);
  byId("of").textContent = `${of}`;
  byId("range").textContent = `${first + 1} to ${first + images.length} of ${of}`;
  byId("back").disabled = first === 0;
  byId("on").disabled = first + images.length >= of;
  byId("strip").replaceChildren(...images.map(button));
}

function button({ index, file, label, picture: address }) {
  const made = document.createElement("button");
  const image = document.createElement("img");
  image.alt = "";
  picture(image, address);
  made.type = "button";
  made.title = file;
  made.append(image, label);
  made.setAttribute("aria-pressed", String(chosen.index === index));
  made.addEventListener("click", () => choose({ index, file: null }, `test image ${index}: ${file}`));
  made.dataset.index = index;
  return made;
}

function choose(what, text) {
  Object.assign(chosen, what);
  for (const other of document.querySelectorAll("#strip button")) {
    other.setAttribute("aria-pressed", String(Number(other.dataset.index) === chosen.index));
  }
  byId("go").disabled = false;
  say(text);
  attack();
}

async function attack() {
  const wanted = new URLSearchParams({ eps: byId("eps").value, norm: byId("norm").value, steps: byId("steps").value });
  if (chosen.index !== null) wanted.set("index", chosen.index);
  byId("go").disabled = true;
  say("attacking ...");
  try {
    const found = await ask(`/attack?${wanted}`, { method: "POST", body: chosen.file });
    byId("threat").textContent = found.threat;
    byId("outcomes").replaceChildren(...found.outcomes.map(outcome));
    say(chosen.file ? `your image ${chosen.file.name}` : `test image ${chosen.index}`);
  } catch (error) {
    byId("outcomes").replaceChildren();
    say(error.message, true);
  } finally {
    byId("go").disabled = false;
  }
}

function outcome(found) {
  const made = byId("outcome").content.cloneNode(true);
  made.querySelector(".run").textContent = found.run;
  const verdict = made.querySelector(".verdict");
  verdict.textContent = sentence(found);
  verdict.classList.add(found.natural.right && !found.attacked.right ? "fell" : "held");
  if (!found.natural.right) verdict.classList.remove("held");
  for (const name of ["natural", "attacked"]) {
    made.querySelector(`ul.${name}`).replaceChildren(...found[name].classes.map(share));
  }
  for (const [name, address] of Object.entries(found.pictures)) picture(made.querySelector(`img.${name}`), address);
  made.querySelector(".magnified").textContent = `difference × ${found.magnified}`;
  made.querySelector(".changed").textContent = `largest change ${found.changed}`;
  return made;
}

function sentence({ target, natural, attacked }) {
  const took = attacked.classes.length ? attacked.classes[0].name : "nothing finite";
  if (!natural.right) return `Not ${target} even without an attack.`;
  return attacked.right ? `Held: still ${target}.` : `Fell: ${target} became ${took}.`;
}

function share({ name, share: part, percent }) {
  const row = document.createElement("li");
  const bar = document.createElement("div");
  const filled = document.createElement("i");
  bar.className = "bar";
  filled.style.width = `${100 * part}%`;
  bar.append(filled);
  row.append(`${name} ${percent}`, bar);
  return row;
}

function upload(file) {
  if (file) choose({ index: null, file }, `your image ${file.name}`);
}

byId("attack").addEventListener("submit", (event) => { event.preventDefault(); attack(); });
byId("norm").addEventListener("change", () => { byId("eps").value = byId("norm").value === "L2" ? "0.5" : "8/255"; });
byId("file").addEventListener("change", (event) => upload(event.target.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  byId("drop").addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") upload(event.dataTransfer.files[0]);
  });
}
if (byId("strip")) {
  byId("back").addEventListener("click", () => { first = Math.max(0, first - 24); list(); });
  byId("on").addEventListener("click", () => { first += 24; list(); });
  list().catch((error) => say(error.message, true));
}
