// Typesets the formulas that the arithmatex extension marks, with the copy of KaTeX 0.19.1 beside this
// file (MIT, see LICENSE; the style sheet names the woff2 fonts only): nothing is fetched from elsewhere.
document.addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll(".arithmatex")) {
    const latex = formula.textContent.trim().slice(2, -2); // without \( \) or \[ \]
    katex.render(latex, formula, { displayMode: formula.tagName === "DIV", throwOnError: false });
  }
  for (const entry of document.querySelectorAll(".md-nav--secondary .md-ellipsis")) {
    // The table of contents repeats the headings as text.
    entry.innerHTML = entry.innerHTML.replace(/\\\((.*?)\\\)/g, (_, latex) =>
      katex.renderToString(latex, { throwOnError: false }),
    );
  }
});
