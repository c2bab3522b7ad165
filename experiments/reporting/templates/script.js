// What the page does besides being read: all of it is readable without this.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) {
      element.setAttribute(key, value);
    }
    return element;
  };

  // A link opens the section that it leads to; paper shows all of them.
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    closed.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => {
    closed.forEach((each) => { each.open = false; });
  });

  // A seed that is pointed at is marked wherever it is drawn.
  document.addEventListener("pointerover", (event) => {
    const { seed } = event.target.dataset ?? {};
    all(".hot").forEach((each) => each.classList.remove("hot"));
    if (seed !== undefined) {
      all(`[data-seed="${seed}"]`).forEach((each) => each.classList.add("hot"));
    }
  });

  const save = (name, type, data) => {
    const link = make("a", "", { download: name });
    link.href = URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const tools = (region, ...elements) => {
    const bar = make("div", "", { class: "tools" });
    bar.append(...elements);
    if (region.closest("figure")) region.append(bar);
    else region.before(bar);
  };
  const button = (text, label, act) => {
    const element = make("button", text, { type: "button", "aria-label": label });
    element.addEventListener("click", act);
    return element;
  };
  const study = document.title.replace(/^Study /, "");
  const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 60);

  // Tables: sorted by a column, filtered by words, saved as CSV.
  const text = (cell) => {
    const copy = cell.cloneNode(true);
    all("title, sup", copy).forEach((each) => each.remove());
    all("small", copy).forEach((each) => each.prepend(" "));
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const quote = (cell) => {
    const content = text(cell);
    const safe = /^[=+@\t]/.test(content) && isNaN(content) ? `'${content}` : content;
    return `"${safe.replaceAll('"', '""')}"`;
  };
  const number = (content) => {
    const found = content.replaceAll("−", "-").match(/^<?\s*([+-]?[\d.]+)/);
    return found ? Number(found[1]) : NaN;
  };
  const compare = (first, second) => {
    const [a, b] = [number(first), number(second)];
    if (isNaN(a) && isNaN(b)) return first.localeCompare(second);
    return isNaN(a) - isNaN(b) || a - b;
  };
  const sort = (table, column, header) => {
    const down = header.getAttribute("aria-sort") === "ascending";
    all("th[aria-sort]", table).forEach((each) => each.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = all("tr:not(.group)", body);
      const keys = new Map(rows.map((row) => [row, text(row.cells[column])]));
      rows.sort((a, b) => compare(keys.get(a), keys.get(b)) * (down ? -1 : 1));
      body.append(...rows);
    }
  };
  for (const region of all(".scroll:has(> table)")) {
    const table = region.querySelector("table");
    const name = region.getAttribute("aria-label") ?? "table";
    const rows = all("tbody tr:not(.group)", table);
    const csv = () => save(`${slug(`${study} ${name}`)}.csv`, "text/csv", all("tr", table)
      .map((row) => [...row.cells].map(quote).join(",")).join("\r\n"));
    const shown = [button("CSV", `Save ${name} as CSV`, csv)];
    if (rows.length > 8 && !table.matches(".heat, .facts")) {
      const input = make("input", "", {
        type: "search", placeholder: "filter rows", "aria-label": `Filter ${name}`,
      });
      input.addEventListener("input", () => {
        const words = input.value.toLowerCase().split(/\s+/);
        for (const row of rows) {
          const content = row.textContent.toLowerCase();
          row.hidden = !words.every((word) => content.includes(word));
        }
      });
      shown.unshift(input);
    }
    if (!table.matches(".heat, .facts")) {
      all("thead th", table).forEach((header, column) => {
        if (header.querySelector("svg") || !header.textContent.trim()) return;
        const label = make("button", header.textContent, { type: "button" });
        label.addEventListener("click", () => sort(table, column, header));
        header.dataset.label = header.textContent;
        header.replaceChildren(label);
      });
    }
    if (!table.matches(".facts")) tools(region, ...shown);
  }

  // Figures: saved as SVG or PNG, with the colours that they have here.
  const standalone = (svg) => {
    const copy = svg.cloneNode(true);
    const style = getComputedStyle(document.documentElement);
    const { width, height } = svg.getBoundingClientRect();
    const colours = ["--ink", "--line", "--paper", "--dim"]
      .map((key) => `${key}:${style.getPropertyValue(key)}`).join(";");
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.setAttribute("style", `${colours};color:${getComputedStyle(svg).color};`
      + `background:${style.getPropertyValue("--paper")};font-family:sans-serif`);
    return [new XMLSerializer().serializeToString(copy), width, height];
  };
  const rasterize = (svg, name) => {
    const [source, width, height] = standalone(svg);
    const image = new Image();
    image.onload = () => {
      const canvas = make("canvas", "", { width: 3 * width, height: 3 * height });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(`${name}.png`, "image/png", blob));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`;
  };
  for (const svg of all("figure svg[role=img]")) {
    const label = svg.getAttribute("aria-label");
    const name = slug(`${study} ${label}`);
    tools(
      svg.closest(".scroll"),
      button("SVG", `Save as SVG: ${label}`,
        () => save(`${name}.svg`, "image/svg+xml", standalone(svg)[0])),
      button("PNG", `Save as PNG: ${label}`, () => rasterize(svg, name)),
    );
  }
})();
