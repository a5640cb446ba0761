// Tables that are wider than the screen are scrolled: also by the keyboard.
addEventListener('load', () => {
  for (const table of document.querySelectorAll('.md-typeset__scrollwrap')) {
    table.tabIndex = 0;
  }
});
