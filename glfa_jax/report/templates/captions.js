"use strict";
const { name, rows, others } = JSON.parse(document.getElementById("rows").textContent);
const shown = [...document.querySelectorAll("article")];
const fields = shown.map((article) => article.querySelector("textarea"));
const boxes = shown.map((article) => article.querySelector("input"));
const state = document.getElementById("state");
const filters = document.getElementById("filters");
let unsaved = false;

function words(i) { return fields[i].value.split(/\s+/).filter(Boolean).join(" "); }
function isChanged(i) { return words(i) !== rows[i].caption.split(/\s+/).filter(Boolean).join(" "); }

// A caption that was changed has been read.
function update(i) {
  const changed = isChanged(i);
  shown[i].classList.toggle("changed", changed);
  shown[i].classList.toggle("empty", words(i) === "");
  if (changed) boxes[i].checked = true;
}

function count() {
  const changed = rows.filter((_, i) => isChanged(i)).length;
  const checked = boxes.filter((box) => box.checked).length;
  const empty = rows.filter((_, i) => words(i) === "").length;
  state.textContent = `${changed} corrected, ${checked} of ${rows.length} checked`
    + (empty ? `; ${empty} without words, which cannot be saved` : "")
    + (unsaved ? "; not saved yet" : "");
  document.getElementById("save").disabled = empty > 0;
}

function filter() {
  const wanted = filters.elements.show.value, text = filters.elements.text.value.toLowerCase();
  let left = 0;
  shown.forEach((article, i) => {
    const fits = (wanted !== "divided" || article.classList.contains("divided"))
      && (wanted !== "unchecked" || !boxes[i].checked)
      && (rows[i].stim_file + " " + fields[i].value).toLowerCase().includes(text);
    article.hidden = !fits;
    left += fits;
  });
  document.getElementById("left").textContent = `${left} of ${rows.length} shown`;
}

// As RFC 4180 quotes, with tabs in place of commas.
function quoted(value) {
  return /["\t\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

// Also of clips that are not shown: it takes the old one's place.
function table() {
  const columns = [...new Set([...rows, ...others].flatMap(Object.keys))];
  const corrected = rows.map((row, i) => {
    const now = { ...row, checked: boxes[i].checked ? row.checked || "yes" : "" };
    if (isChanged(i)) now.caption = words(i);
    return now;
  });
  const lines = [...corrected, ...others].map(
    (row) => columns.map((column) => quoted(row[column] ?? "")).join("\t"));
  return [columns.join("\t"), ...lines].join("\n") + "\n";
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/tab-separated-values" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  unsaved = false;
  count();
}

function edited(i) { unsaved = true; update(i); count(); }
fields.forEach((field, i) => field.addEventListener("input", () => edited(i)));
boxes.forEach((box, i) => box.addEventListener("change", () => edited(i)));
filters.addEventListener("input", filter);
filters.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("save").addEventListener("click", save);
document.getElementById("all").addEventListener("click", () => {
  shown.forEach((article, i) => { if (!article.hidden) boxes[i].checked = true; });
  unsaved = true;
  count();
});
addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
// The page spells out what cannot be seen; the field has to hold what the table holds.
fields.forEach((field, i) => { field.value = rows[i].caption; update(i); });
filter();
count();
