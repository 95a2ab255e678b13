"use strict";

const at = (id) => document.getElementById(id);
const form = at("ask"), images = at("images"), chosen = at("chosen"), state = at("state"), drop = at("drop");

function tell(text, wrong = false) {
  state.textContent = text;
  state.classList.toggle("wrong", wrong);
}

// Browsers show no TIFF: such an image is named in place of its picture.
function preview(file) {
  const picture = new Image();
  picture.alt = file.name;
  picture.onload = () => URL.revokeObjectURL(picture.src);
  picture.onerror = () => {
    const name = document.createElement("span");
    name.textContent = file.name;
    picture.replaceWith(name);
  };
  picture.src = URL.createObjectURL(file);
  return picture;
}

function showChosen() {
  const files = [...images.files];
  chosen.replaceChildren(...files.map(preview));
  at("prompt").textContent = files.length ? "Choose others" : at("prompt").dataset.first;
}

function showAnswer(question, answer) {
  const shown = at("answer").content.cloneNode(true);
  const put = (name, text) => (shown.querySelector("." + name).textContent = text);
  shown.querySelector("img").src = answer.picture;
  put("asked", question);
  put("said", answer.answer ?? answer.response);
  shown.querySelector(".said").classList.toggle("unread", answer.answer === null);
  put("reasoning", answer.reasoning ?? "");
  put("seconds", answer.seconds.toFixed(1) + " s" + (answer.answer === null ? ", not of the form that was trained" : ""));
  for (const box of answer.boxes) {
    const item = document.createElement("li");
    item.textContent = `${box.label ? box.label + " " : ""}[${box.coords.join(", ")}] ${answer.units}`;
    shown.querySelector(".boxes").append(item);
  }
  at("answers").prepend(shown);
}

async function ask() {
  const size = [...images.files].reduce((sum, file) => sum + file.size, 0);
  if (size > form.dataset.limit) {
    tell(`The images have ${(size / 2 ** 20).toFixed(0)} MiB together, at most ${form.dataset.limit / 2 ** 20} are taken.`, true);
    return;
  }
  const question = at("question").value;
  at("send").disabled = true;
  tell("Looking ...");
  try {
    const response = await fetch("answer", { method: "POST", body: new FormData(form) });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error ?? `The server failed (${response.status}).`);
    showAnswer(question, answer);
    tell("");
  } catch (error) {
    tell(error instanceof TypeError ? "The server does not answer." : error.message, true);
  } finally {
    at("send").disabled = false;
  }
}

at("prompt").dataset.first = at("prompt").textContent;
images.addEventListener("change", showChosen);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
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
