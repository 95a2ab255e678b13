"use strict";

const at = (id) => document.getElementById(id);
const form = at("ask"), images = at("images"), chosen = at("chosen"), state = at("state"), drop = at("drop");

function setStatus(text, wrong = false) {
  state.textContent = text;
  state.classList.toggle("wrong", wrong);
}

// Most browsers cannot display TIFF: show the file name instead.
function preview(file) {
  const image = new Image();
  image.alt = file.name;
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => {
    const name = document.createElement("span");
    name.textContent = file.name;
    image.replaceWith(name);
  };
  image.src = URL.createObjectURL(file);
  return image;
}

function showChosen() {
  const files = [...images.files];
  chosen.replaceChildren(...files.map(preview));
  at("prompt").textContent = files.length ? "Choose other images" : at("prompt").dataset.first;
}

function showAnswer(question, answer) {
  const entry = at("answer").content.cloneNode(true);
  const put = (name, text) => (entry.querySelector("." + name).textContent = text);
  entry.querySelector("img").src = answer.picture;
  put("asked", question);
  put("said", answer.answer ?? answer.response);
  entry.querySelector(".said").classList.toggle("unread", answer.answer === null);
  put("reasoning", answer.reasoning ?? "");
  put("seconds", answer.seconds.toFixed(1) + " s" + (answer.answer === null ? ", not in the trained response format" : ""));
  if (answer.geojson) {
    const link = entry.querySelector(".map a");
    link.href = URL.createObjectURL(new Blob([answer.geojson], { type: "application/geo+json" }));
    link.download = "answer.geojson";
    entry.querySelector(".map").classList.add("placed");
  }
  for (const box of answer.boxes) {
    const item = document.createElement("li");
    item.textContent = `${box.label ? box.label + " " : ""}[${box.coords.join(", ")}] ${answer.units}`;
    entry.querySelector(".boxes").append(item);
  }
  at("answers").prepend(entry);
}

async function ask() {
  const size = [...images.files].reduce((sum, file) => sum + file.size, 0);
  if (size > form.dataset.limit) {
    setStatus(`Expected at most ${form.dataset.limit / 2 ** 20} MiB of images, found ${(size / 2 ** 20).toFixed(0)} MiB.`, true);
    return;
  }
  const question = at("question").value;
  at("send").disabled = true;
  setStatus("Generating the answer ...");
  try {
    const response = await fetch("answer", { method: "POST", body: new FormData(form) });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error ?? `Server error ${response.status}.`);
    showAnswer(question, answer);
    setStatus("");
  } catch (error) {
    setStatus(error instanceof TypeError ? "The server does not respond." : error.message, true);
  } finally {
    at("send").disabled = false;
  }
}

async function useExample(button) {
  const { example, images: count, task, question } = button.dataset;
  const files = new DataTransfer();
  for (let k = 0; k < count; k++) {
    const picture = await (await fetch(`examples/${example}/${k}.png`)).blob();
    files.items.add(new File([picture], `drawn-${k}.png`, { type: "image/png" }));
  }
  images.files = files.files;
  at("question").value = question;
  at("task").value = task;
  showChosen();
  await ask();
}

at("prompt").dataset.first = at("prompt").textContent;
images.addEventListener("change", showChosen);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => useExample(button));
}
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) {
      images.files = event.dataTransfer.files;
      showChosen();
    }
  });
}
