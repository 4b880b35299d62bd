// One page: the worklist, and the study that is open. All addresses are relative to the page's own, which is the key.
const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };
const digits = (value) => (value === null ? "none" : Number(value).toPrecision(4));
let items = [];
let item = null; // that is open
let index = 0; // of its slice
let values = null; // of the slice: pixels, and what its numbers mean
let chosen = null; // the reader's window, {center, width}; null for the one that the model saw

function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function loadWorklist() {
  const answer = await fetch("worklist");
  if (!answer.ok) throw new Error(await answer.text());
  const found = await answer.json();
  items = found.items;
  $("model").textContent = `${found.model}. Research software, not a medical device.`;
  const done = items.filter((each) => each.verdict).length;
  $("worklist-title").textContent = `Worklist: ${items.length}, ${done} with a verdict`;
  $("worklist").replaceChildren(...items.map(line));
}

function line(each) {
  const button = element("button", "");
  const picture = document.createElement("img");
  Object.assign(picture, { src: `thumbnail/${each.worst}`, alt: "", loading: "lazy", width: 72, height: 72 });
  const score = each.score === null ? `raw ${digits(each.raw_score)}` : `${each.score.toFixed(3)}`;
  const slices = each.slices.length > 1 ? `${each.slices.length} slices, ` : "";
  button.append(picture, element("strong", `${score} ${each.label || "no threshold"}`, each.label));
  button.append(element("small", `raw ${digits(each.raw_score)}, threshold ${digits(each.threshold)}`));
  button.append(element("small", `${slices}${each.name}`));
  if (each.verdict) button.append(element("small", `\u2713 ${each.verdict.verdict}: ${each.verdict.label}`, "said"));
  button.addEventListener("click", () => open(each));
  button.setAttribute("aria-current", item !== null && each.name === item.name);
  const entry = document.createElement("li");
  entry.append(button);
  return entry;
}

function open(each) {
  item = each;
  index = Math.max(0, item.slices.findIndex((slice) => slice.image === item.worst));
  chosen = null;
  document.body.classList.add("open");
  $("study").hidden = false;
  $("slice").max = item.slices.length - 1;
  $("slice-label").hidden = item.slices.length === 1;
  $("study-title").textContent = `${item.slices.length > 1 ? "Series" : "Image"} ${item.name}`;
  $("comment").value = "";
  $("before").textContent = item.verdict
    ? `Said before: ${item.verdict.verdict} (${item.verdict.label}), ${item.verdict.time}. ${item.verdict.comment}`
    : "";
  const answers = item.label ? ["agree", "disagree"] : ["normal", "abnormal"];
  const missed = item.slices.length > 1 && item.label !== "abnormal";
  $("meaning").textContent =
    (item.label ? `The model says ${item.label}. ` : "The model has no threshold. ") +
    (missed ? `With \u201c${answers[1]}\u201d the slice that is shown is kept as abnormal.` : "");
  $("answers").replaceChildren(...answers.map((word) => {
    const button = element("button", word[0].toUpperCase() + word.slice(1));
    button.value = word;
    return button;
  }));
  items.forEach((other, place) => {
    $("worklist").children[place].firstChild.setAttribute("aria-current", other === item);
  });
  $("study-title").focus();
  show();
}

function facts(slice) {
  const rows = [["Score", item.score === null ? "none" : item.score.toFixed(3)], ["Label", item.label || "no threshold"],
    ["Raw", digits(item.raw_score)], ["Threshold", digits(item.threshold)]];
  if (item.slices.length > 1) rows.push(["This slice", `raw ${digits(slice.raw_score)}, ${slice.label || "no threshold"}`]);
  if (item.patient) rows.push(["Patient of series", item.patient]);
  if (slice.path) rows.push(["File", slice.path]);
  $("facts").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div");
    row.append(element("dt", name), element("dd", value, name === "Label" ? item.label : ""));
    return row;
  }));
  $("notes").textContent = [...new Set([item.note, slice.note])].filter(Boolean).join("; ");
}

const cache = new Map(); // the last slices, by name
function fetchValues(image) {
  const known = cache.get(image);
  if (known) return known;
  const wanted = fetch(`values/${image}`).then(async (answer) => {
    if (!answer.ok) throw new Error(await answer.text());
    const numbers = JSON.parse(answer.headers.get("X-Values"));
    const bytes = await answer.arrayBuffer();
    const colour = numbers.shape.length === 3;
    return { ...numbers, colour, pixels: colour ? new Uint8Array(bytes) : new Uint16Array(bytes) };
  });
  cache.set(image, wanted);
  if (cache.size > 24) cache.delete(cache.keys().next().value);
  wanted.catch(() => cache.delete(image));
  return wanted;
}

async function show() {
  const slice = item.slices[index];
  $("slice").value = index;
  $("slice-number").textContent = `${index + 1} of ${item.slices.length}`;
  $("stage").setAttribute("aria-label", `Slice ${index + 1} of ${item.slices.length}`);
  facts(slice);
  say("");
  for (const [id, kind] of [["over", "layer"], ["map", "heatmap"], ["legend", "legend"]]) {
    $(id).hidden = false;
    $(id).src = `${kind}/${slice.image}`;
  }
  let found = null;
  try {
    found = await fetchValues(slice.image);
  } catch (error) {
    if (slice === item.slices[index]) say(error.message);
  }
  if (slice !== item.slices[index]) return; // another one was asked for meanwhile
  values = found;
  paint();
  for (const next of [index + 1, index - 1]) {
    if (item.slices[next]) fetchValues(item.slices[next].image).catch(() => {});
  }
}

function paint() {
  const canvas = $("image");
  const twice = $("two").checked || values === null;
  $("beside").hidden = !twice;
  canvas.parentElement.hidden = values === null;
  $("over").style.opacity = twice ? 0 : $("blend").value / 100;
  $("blend-label").hidden = twice;
  $("blend-number").textContent = `${$("blend").value}%`;
  if (values === null) return;
  const [height, width] = values.shape;
  // As large as fits, two beside each other where they are wanted.
  const stage = $("stage").clientWidth - 24;
  const factor = Math.min(stage / (twice ? 2 : 1) / width, (window.innerHeight * 0.7) / height);
  for (const pane of document.querySelectorAll(".pane")) {
    pane.style.width = `${width * factor}px`;
    pane.style.height = `${height * factor}px`;
  }
  const { center, width: span } = chosen ?? values;
  const scale = values.colour ? 255 : 65535;
  const grey = new Uint8ClampedArray(scale + 1);
  for (let stored = 0; stored <= scale; stored += 1) {
    const value = values.low + ((values.high - values.low) * stored) / scale;
    grey[stored] = 255 * ((value - center) / span + 0.5);
  }
  Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height);
  const step = values.colour ? 1 : 0;
  for (let from = 0, to = 0; to < picture.data.length; to += 4, from += values.colour ? 3 : 1) {
    picture.data[to] = grey[values.pixels[from]];
    picture.data[to + 1] = grey[values.pixels[from + step]];
    picture.data[to + 2] = grey[values.pixels[from + 2 * step]];
    picture.data[to + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  const slice = item.slices[index];
  canvas.setAttribute("aria-label", `Image with the map over it, raw score ${digits(slice.raw_score)}, ${slice.label || "no threshold"}`);
  const full = values.high - values.low;
  Object.assign($("level"), { min: values.low, max: values.high, value: center });
  Object.assign($("width"), { min: full / 256, max: 2 * full, value: span });
  $("level-number").textContent = digits(center);
  $("width-number").textContent = digits(span);
}

let painting = false;
function paintSoon() {
  if (painting || item === null) return;
  painting = true;
  requestAnimationFrame(() => { painting = false; paint(); });
}

function choose(change) {
  if (values === null) return;
  const { center, width } = chosen ?? values;
  chosen = { center, width, ...change };
  paintSoon();
}

function go(to) {
  const next = Math.min(Math.max(to, 0), item.slices.length - 1);
  if (next === index) return false;
  index = next;
  show();
  return true;
}

$("stage").addEventListener("wheel", (event) => {
  if (event.ctrlKey || item.slices.length === 1) return;
  event.preventDefault();
  go(index + Math.sign(event.deltaY));
}, { passive: false });
$("study").addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea")) return; // these have their own
  const last = item.slices.length - 1;
  const to = {
    ArrowDown: index + 1, ArrowRight: index + 1, ArrowUp: index - 1, ArrowLeft: index - 1,
    PageDown: index + 10, PageUp: index - 10, Home: 0, End: last,
  }[event.key];
  if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
  if (last > 0) event.preventDefault();
  go(to);
});
$("image").addEventListener("pointerdown", (event) => $("image").setPointerCapture(event.pointerId));
$("image").addEventListener("pointermove", (event) => {
  if (!event.buttons || values === null || !$("image").hasPointerCapture(event.pointerId)) return;
  const { center, width } = chosen ?? values;
  const step = (values.high - values.low) / 500;
  choose({ center: center + event.movementY * step, width: Math.max(width + event.movementX * step, step / 10) });
});
$("slice").addEventListener("input", () => go(Number($("slice").value)));
$("level").addEventListener("input", () => choose({ center: Number($("level").value) }));
$("width").addEventListener("input", () => choose({ width: Number($("width").value) }));
$("reset").addEventListener("click", () => { chosen = null; paintSoon(); });
for (const id of ["blend", "two"]) $(id).addEventListener("input", paintSoon);
for (const id of ["over", "map", "legend"]) $(id).addEventListener("error", () => { $(id).hidden = true; });
window.addEventListener("resize", paintSoon);
$("back").addEventListener("click", () => {
  document.body.classList.remove("open");
  $("study").hidden = true;
  const place = items.findIndex((each) => each.name === item.name);
  $("worklist").children[place]?.firstChild.focus();
});
$("verdict").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = { item: item.name, verdict: event.submitter.value, comment: $("comment").value, image: item.slices[index].image };
  try {
    const answer = await fetch("verdict", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(said) });
    if (!answer.ok) throw new Error(await answer.text());
    const kept = await answer.json();
    await loadWorklist();
    const again = items.find((each) => each.name === said.item);
    if (again && item.name === said.item) open(again);
    say(kept.verdict === kept.label ? `Kept: ${kept.label}.` : `Kept: ${kept.verdict}, so it is ${kept.label}.`);
  } catch (error) {
    say(`Not kept. ${error.message}`);
  }
});

loadWorklist().catch((error) => say(`The worklist could not be loaded. ${error.message}`));
