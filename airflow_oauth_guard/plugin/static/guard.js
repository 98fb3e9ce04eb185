// What the page does beyond HTML: Airflow's theme, the reader's clock, countdowns, and the way out of Airflow's frame.
"use strict";

const framed = window.parent !== window;
const root = document.documentElement;

function theme() {
  let chosen = null;
  try {
    // Airflow's own switch; the page is of the same origin.
    chosen = localStorage.getItem("theme");
  } catch {
    // Storage is switched off in this browser: its own preference is all there is.
  }
  const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "dark" : "light";
}

theme();
window.addEventListener("storage", theme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
root.classList.toggle("framed", framed);

function words(seconds) {
  const s = Math.floor(Math.abs(seconds));
  const two = (a, unit, b, next) => (b ? `${a} ${unit} ${b} ${next}` : `${a} ${unit}`);
  if (s >= 86400) return two(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
  if (s >= 3600) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return s >= 120 ? `${Math.floor(s / 60)} min` : `${s} s`;
}

function countDown() {
  for (const time of document.querySelectorAll("time[data-countdown]")) {
    const left = (new Date(time.dateTime) - Date.now()) / 1000;
    time.textContent = left > 0 ? `in ${words(left)}` : `${words(left)} ago`;
  }
}

function localTimes() {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of document.querySelectorAll("time:not(.short, [data-countdown])")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }
}

// Airflow shows us in a frame that may not leave its window, open another one, or ask a question. Its own document may, so
// all of that goes there.
function outside(element, target = "_top") {
  const copy = window.parent.document.importNode(element, true);
  copy.target = target;
  copy.hidden = true;
  window.parent.document.body.append(copy);
  copy.tagName === "FORM" ? copy.submit() : copy.click();
  copy.remove();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-top], a[target=_blank]");
  if (!framed || !link) return;
  event.preventDefault();
  link.href = link.href;
  outside(link, link.target || "_top");
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !window.parent.confirm(form.dataset.confirm)) {
    event.preventDefault();
    return;
  }
  if (framed && form.closest("[data-outside]")) {
    event.preventDefault();
    form.action = form.action;
    outside(form);
    return;
  }
  for (const button of form.querySelectorAll("button")) button.disabled = form.method === "post";
});

// A page that comes back from the browser's memory has its buttons again.
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button")) button.disabled = false;
});

async function poll(waiting, waited) {
  const body = new URLSearchParams({ state: waiting.dataset.state, form_token: waiting.dataset.token, waited });
  const answer = await fetch(waiting.dataset.poll, { method: "POST", body, headers: { Accept: "application/json" } });
  if (!answer.ok) {
    const type = answer.headers.get("content-type") || "";
    waiting.textContent = type.includes("json") ? (await answer.json()).detail : "It did not work; begin again from the credential's page.";
    return;
  }
  const said = await answer.json();
  if (said.done) {
    location.assign(said.place);
    return;
  }
  setTimeout(poll, said.after_seconds * 1000, waiting, said.after_seconds);
}

document.addEventListener("DOMContentLoaded", () => {
  localTimes();
  countDown();
  setInterval(countDown, 1000);
  const waiting = document.querySelector("[data-poll]");
  if (waiting) setTimeout(poll, Number(waiting.dataset.after) * 1000, waiting, Number(waiting.dataset.after));
});
