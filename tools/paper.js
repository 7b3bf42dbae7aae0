/**
 * Make a page of the book ready for paper; returns its headings, [level, id, text].
 *
 * What can be opened on the screen moves to the page's end: the answers of prompts, and the solutions. Links into
 * the book lead to `inside` instead of `site`; a hidden link to each id makes the PDF remember where it stands.
 */
([site, inside]) => {
  const make = (tag, html) => Object.assign(document.createElement(tag), { innerHTML: html });
  const article = document.querySelector("article");
  const end = make("section", '<h2 id="answers">Answers and solutions</h2>');

  article.querySelectorAll(".admonition.important:has(> details)").forEach((prompt, i) => {
    prompt.querySelector(".admonition-title").insertAdjacentHTML("afterbegin", `<span id="prompt-${i + 1}"></span>`);
    end.append(make("h3", `<a id="answer-${i + 1}" href="#prompt-${i + 1}">Stop and predict ${i + 1}</a>`));
    prompt.querySelectorAll(":scope > details").forEach((fold, k) => {
      const letter = `(${String.fromCharCode(97 + k)}) `;
      const summary = fold.querySelector("summary");
      fold.before(make("p", letter + summary.innerHTML));
      summary.remove();
      fold.firstElementChild.prepend(letter);
      end.append(...fold.children);
      fold.remove();
    });
    prompt.append(make("p", `<a href="#answer-${i + 1}">Answers ${i + 1}, at the end of the chapter</a>`));
  });
  for (const solution of article.querySelectorAll(".solution.dropdown")) {
    solution.classList.remove("dropdown", "toggle", "toggle-hidden");
    end.append(solution);
  }
  if (end.children.length > 1) {
    article.append(end);
  }

  for (const link of article.querySelectorAll("a[href]")) {
    link.href = link.href.replace(site, inside);
  }
  const marks = Object.assign(make("nav", ""), { hidden: true });
  marks.append(...[...article.querySelectorAll("[id]")].map(({ id }) => Object.assign(make("a", ""), { href: `#${id}` })));
  article.append(marks);

  return [...article.querySelectorAll("h1, h2")].map((heading) => {
    const text = heading.cloneNode(true);
    text.querySelectorAll(".headerlink").forEach((mark) => mark.remove());
    return [Number(heading.tagName[1]), heading.closest("[id]").id, text.textContent.trim()];
  });
}
