"use strict";
// Everything on the page is there without this; it adds hiding branches, and a card with what is known of a mark.
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const rows = new Map(all("tr[data-branch]").map((row) => [row.dataset.branch, row]));
  const marks = all(".mark");
  const hiddenBranches = new Set();
  const hiddenOperations = new Set();

  // Hiding: by a branch, in its row; by an operation, in the key.
  const bar = document.getElementById("hidden");
  const show = () => {
    for (const element of all("[data-branch]")) {
      const branch = element.dataset.branch;
      const operation = rows.get(branch)?.dataset.operation;
      element.classList.toggle("gone", hiddenBranches.has(branch) || hiddenOperations.has(operation));
    }
    bar.replaceChildren();
    bar.hidden = hiddenBranches.size === 0;
    if (bar.hidden) return;
    bar.append("Hidden: ");
    for (const branch of hiddenBranches) {
      const back = make("button", { type: "button", textContent: `branch ${branch}`, title: "show it again" });
      back.addEventListener("click", () => { hiddenBranches.delete(branch); show(); });
      bar.append(back, " ");
    }
    const every = make("button", { type: "button", textContent: "show all" });
    every.addEventListener("click", () => { hiddenBranches.clear(); show(); });
    bar.append(every);
  };
  const hide = (branch) => { hiddenBranches.add(branch); show(); };
  for (const [branch, row] of rows) {
    const button = make("button", { type: "button", className: "hide", textContent: "hide" });
    button.setAttribute("aria-label", `hide branch ${branch}`);
    button.addEventListener("click", () => hide(branch));
    row.querySelector("th").append(" ", button);
  }
  for (const box of all(".key input")) {
    box.hidden = false;
    box.checked = true;
    box.addEventListener("change", () => {
      hiddenOperations[box.checked ? "delete" : "add"](box.dataset.operation);
      show();
    });
  }

  // The card: shown at the mark that is pointed at or has the focus; a click keeps it, with links.
  const card = make("div", { id: "card", hidden: true });
  card.setAttribute("role", "status");
  document.body.append(card);
  let kept = null;
  for (const mark of marks) {
    const title = mark.querySelector("title");
    mark.words = title.textContent;
    mark.setAttribute("aria-label", mark.words.replaceAll("\n", ", "));
    title.remove();
    // One picture's marks are enough for the Tab key.
    if (!mark.closest(".tree, .picker")) mark.setAttribute("tabindex", "-1");
  }
  const place = (mark) => {
    const box = mark.getBoundingClientRect();
    const left = Math.min(box.right + 10, innerWidth - card.offsetWidth - 8);
    const above = box.top - card.offsetHeight - 10;
    card.style.left = `${Math.max(8, left) + scrollX}px`;
    card.style.top = `${(above > 0 ? above : box.bottom + 10) + scrollY}px`;
  };
  const tell = (mark, keep) => {
    const [heading, ...lines] = mark.words.split("\n");
    card.replaceChildren(make("strong", { textContent: heading }));
    for (const line of lines) card.append(make("div", { textContent: line }));
    if (keep) {
      const branch = mark.dataset.branch;
      const file = rows.get(branch)?.querySelector("th a");
      const links = make("div", { className: "links" });
      const toRow = make("a", { href: `#branch-${branch}`, textContent: "its row" });
      toRow.addEventListener("click", () => open(branch));
      links.append(toRow);
      if (file) links.append(make("a", { href: file.getAttribute("href"), textContent: file.title, download: "" }));
      const button = make("button", { type: "button", textContent: "hide" });
      button.addEventListener("click", () => { put(); hide(branch); });
      links.append(button);
      card.append(links);
    }
    kept = keep ? mark : null;
    card.hidden = false;
    for (const each of marks) each.classList.toggle("same", each.dataset.branch === mark.dataset.branch);
    place(mark);
  };
  const put = () => {
    kept = null;
    card.hidden = true;
    for (const each of all(".mark.same")) each.classList.remove("same");
  };
  // A marker is small for a finger: the nearest one within reach is meant.
  const nearest = (event) => {
    const found = event.target.closest?.(".mark");
    const picture = event.target.closest?.("svg.picture");
    if (found || !picture) return found;
    let best = null;
    let least = 18;
    for (const mark of all(".mark:not(.gone)", picture)) {
      const box = mark.getBoundingClientRect();
      const distance = Math.hypot(event.clientX - (box.left + box.right) / 2, event.clientY - (box.top + box.bottom) / 2);
      if (distance < least) [best, least] = [mark, distance];
    }
    return best;
  };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.(".mark");
    if (mark && !kept) tell(mark, false);
    else if (!kept && !card.hidden) put();
  });
  document.addEventListener("focusin", (event) => {
    if (event.target.matches?.(".mark") && !kept) tell(event.target, false);
  });
  document.addEventListener("click", (event) => {
    if (card.contains(event.target)) return;
    const mark = nearest(event);
    if (mark) {
      event.preventDefault();
      if (mark.closest(".picker")) choose(mark.dataset.branch);
      else tell(mark, true);
    } else put();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") put(); });

  // The front: a point of the chart or a row of the table is picked, with what it costs and its file.
  const pick = document.getElementById("pick");
  const candidates = new Map(all(".picker .front-row").map((row) => [row.dataset.branch, row]));
  const choose = (branch) => {
    const row = candidates.get(branch);
    if (!row) return;
    for (const each of all(".picker .picked")) each.classList.remove("picked");
    for (const each of all(`.picker [data-branch="${branch}"]:not(.trail)`)) each.classList.add("picked");
    for (const [number, each] of candidates) each.setAttribute("aria-selected", String(number === branch));
    const names = all(".picker thead th").slice(0, -1).map((cell) => cell.textContent.trim());
    const numbers = make("div", { className: "numbers" });
    names.forEach((name, i) => {
      const value = make("b", { textContent: row.cells[i].textContent.trim() });
      numbers.append(make("div", {}, value, name));
    });
    pick.replaceChildren(make("div", { className: "name", textContent: row.dataset.topology }), numbers);
    const link = row.querySelector("a");
    if (link) {
      const words = `Download ${link.textContent.trim()}`;
      pick.append(make("a", { className: "download", href: link.getAttribute("href"), textContent: words, download: "" }));
    }
    pick.hidden = false;
  };
  for (const [branch, row] of candidates) {
    row.tabIndex = 0;
    row.addEventListener("click", () => choose(branch));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target === row) choose(branch); });
  }
  if (pick) choose((document.querySelector(".front-row.result") ?? [...candidates.values()].at(-1)).dataset.branch);

  // What is long is folded on a small screen, and unfolded to be printed or where a link leads into it.
  const folds = all("details");
  const small = matchMedia("(max-width: 56rem)").matches;
  for (const fold of folds) fold.open = fold.dataset.fold === "never" || (fold.dataset.fold === "small" && !small);
  const open = (branch) => {
    const fold = rows.get(branch)?.closest("details");
    if (fold) fold.open = true;
  };
  const follow = () => {
    const found = /^#branch-(\d+)$/.exec(location.hash);
    if (!found) return;
    open(found[1]);
    document.getElementById(location.hash.slice(1))?.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", follow);
  follow();
  for (const link of all('a[href^="#branch-"]:not(.mark)')) {
    link.addEventListener("click", () => open(link.hash.slice("#branch-".length)));
  }
  let before = [];
  addEventListener("beforeprint", () => {
    before = folds.map((fold) => fold.open);
    for (const fold of folds) fold.open = true;
    put();
  });
  addEventListener("afterprint", () => folds.forEach((fold, number) => { fold.open = before[number]; }));
})();
