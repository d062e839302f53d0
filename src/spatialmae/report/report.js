// The claims table: sorted by DataTables, filtered by the controls above it, its rows opened in place.
import DataTable from "datatables";

const table = document.getElementById("claims-table");
const filters = document.getElementById("filters");
const control = (name) => document.getElementById(`filter-${name}`);
const detailOf = new Map();
const textOf = new Map();

// Without this script a claim's id leads to its details below the table; with it, to the same details in the table.
for (const row of table.tBodies[0].rows) {
  const link = row.querySelector(".opener");
  const detail = document.querySelector(`[id="${link.hash.slice(1)}"]`);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "opener";
  button.textContent = link.textContent;
  button.setAttribute("aria-expanded", "false");
  link.replaceWith(button);
  detailOf.set(row, detail);
  textOf.set(row, `${row.textContent} ${detail.querySelector(".why").textContent}`.toLowerCase());
}
document.getElementById("details").remove();

const claims = new DataTable(table, {
  autoWidth: false,
  paging: false,
  order: [],
  layout: { topStart: "info", topEnd: null, bottomStart: null, bottomEnd: null },
  language: { info: "_TOTAL_ of _MAX_ claims", infoEmpty: "0 of _MAX_ claims", infoFiltered: "", zeroRecords: "No such claim" },
});

let printing = false;

function isShown(row) {
  const { paper, verdict, fidelity } = row.dataset;
  const kinds = { paper: [paper], verdict: [verdict, verdict === "NOT_TESTED" ? "" : "tested"], fidelity: [fidelity] };
  const chosen = Object.entries(kinds).every(([name, values]) => ["", ...values].includes(control(name).value));
  const words = control("text").value.toLowerCase().split(/\s+/);
  return printing || (chosen && words.every((word) => textOf.get(row).includes(word)));
}

function setOpen(row, open) {
  const child = claims.row(row).child;
  const detail = detailOf.get(row);
  const image = document.querySelector(`[id="figure-${detail.dataset.figure}"] img`);
  if (open && image && !detail.querySelector("img")) detail.append(image.cloneNode());
  if (open) child(detail, "opened").show();
  else child.hide();
  row.querySelector(".opener").setAttribute("aria-expanded", String(open));
}

function openAddressed() {
  const row = [...detailOf.keys()].find((one) => location.hash === `#${one.id}`);
  if (!row) return;
  if (!isShown(row)) {
    for (const name of ["paper", "verdict", "fidelity", "text"]) control(name).value = "";
    claims.draw();
  }
  setOpen(row, true);
  row.scrollIntoView();
  row.querySelector(".opener").focus({ preventScroll: true });
}

claims.search.fixed("filters", (text, data, index) => isShown(claims.row(index).node()));
filters.addEventListener("input", () => claims.draw());
table.tBodies[0].addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  const chosen = event.target.closest(".opener") || !(event.target.closest("a") || String(getSelection()));
  if (detailOf.has(row) && chosen) setOpen(row, !claims.row(row).child.isShown());
});
matchMedia("print").addEventListener("change", (event) => {
  printing = event.matches;
  claims.draw();
});
window.addEventListener("hashchange", openAddressed);
filters.hidden = false;
claims.draw(); // the claims that this run tested, or what a reload has kept of the reader's choice
openAddressed();
