"use strict";
// Asks what is new, and puts a newer report in the place of the one that is shown, where the reader is in it.
(() => {
  const EVERY = 2000; // milliseconds
  const state = document.getElementById("state");
  const words = document.getElementById("words");
  const main = document.querySelector("main");
  let shown = document.querySelector("iframe");
  let version = null;

  const tell = (kind, text) => {
    state.className = kind;
    if (words.textContent !== text) words.textContent = text;
  };

  // The line above says it better.
  const adapt = (frame) => {
    for (const notice of frame.contentDocument?.querySelectorAll(".resume") ?? []) notice.hidden = true;
  };
  shown.addEventListener("load", () => adapt(shown));
  adapt(shown);

  // What the reader has unfolded, hidden, and scrolled to stays as it is.
  const keep = (before, after) => {
    const [old, fresh] = [before.contentDocument, after.contentDocument];
    const name = (fold) => fold.querySelector("summary")?.textContent.replace(/\d+/g, "").trim();
    const folds = new Map(Array.from(old.querySelectorAll("details"), (fold) => [name(fold), fold.open]));
    for (const fold of fresh.querySelectorAll("details")) fold.open = folds.get(name(fold)) ?? fold.open;
    for (const box of old.querySelectorAll(".key input:not(:checked)")) {
      fresh.querySelector(`.key input[data-operation="${box.dataset.operation}"]`)?.click();
    }
    after.contentWindow.scrollTo(before.contentWindow.scrollX, before.contentWindow.scrollY);
  };

  const renew = () => new Promise((done) => {
    const next = document.createElement("iframe");
    next.title = shown.title;
    next.addEventListener("load", () => {
      adapt(next);
      try {
        keep(shown, next);
      } catch {
        // A report that was just being loaded has nothing to keep.
      }
      next.className = "shown";
      shown.remove();
      shown = next;
      done();
    }, { once: true });
    next.src = "report.html";
    main.append(next);
  });

  const ask = async () => {
    try {
      const answer = await fetch("news", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const news = await answer.json();
      tell(news.state, news.words);
      if (news.version !== version) {
        const isFirst = version === null;
        version = news.version;
        if (!isFirst) await renew();
      }
    } catch {
      tell("gone", "onnxsurgeon watch no longer answers: it was ended, or the run's folder cannot be read.");
    }
    setTimeout(ask, EVERY);
  };
  ask();
})();
