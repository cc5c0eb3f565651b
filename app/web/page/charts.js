// Charts without a library. Each stands beside a table with the same figures, which screen readers read instead.

import { el } from "./dom.js";

/** A column a point: [label, value, text]. */
export function columns(points) {
  const highest = Math.max(...points.map(([, value]) => value), Number.MIN_VALUE);
  const every = Math.ceil(points.length / 10);
  return el(
    "div.chart",
    { "aria-hidden": "true" },
    points.map(([label, value, text], index) =>
      el("div.chart-column", { title: `${label}: ${text}` }, el("span.chart-fill", { vars: { "--share": value / highest } }), el("span.chart-label", {}, index % every ? "" : label)),
    ),
  );
}
