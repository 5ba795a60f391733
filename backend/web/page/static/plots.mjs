// Draws the charts of a page with plotly's bundle, which loads when the first chart comes into view.
const NAME_PX = 15; // the height of a name
const LETTER_PX = 7; // its width, on average
const NAME_LETTERS = 24;
const MARGIN = { t: 12, r: 16, b: 44, l: 52 };
let bundle;

function plotly() {
  bundle ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/static/plotly.js";
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = reject;
    document.head.append(script);
  });
  return bundle;
}

// The value of a colour of the design sheet: plotly does not know light-dark().
function style(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function traces(chart) {
  const drawn = [];
  for (const series of chart.series) {
    const colour = series.colour || style("--accent");
    if (series.low.length) {
      drawn.push({
        x: [...series.x, ...[...series.x].reverse()],
        y: [...series.high, ...[...series.low].reverse()],
        fill: "toself", fillcolor: colour, opacity: 0.15, line: { width: 0 }, mode: "lines",
        hoverinfo: "skip", showlegend: false, type: "scatter",
      });
    }
    drawn.push({
      x: series.x, y: series.y, name: escaped(series.name), mode: series.mode, type: "scatter",
      cliponaxis: false,
      line: { color: colour, width: 2, dash: series.dashed ? "dash" : "solid" }, marker: { color: colour, size: 7 },
      text: series.texts.length ? series.texts : undefined,
      hovertemplate: series.texts.length ? "%{text}<extra>%{fullData.name}</extra>" : "%{x}: %{y:.3f}<extra>%{fullData.name}</extra>",
    });
  }
  return drawn;
}

// The series with a name beside the plot, so that nobody hunts through a legend: it stands right of the plot, where no
// line is, at the height of the series' last point.
function named(chart) {
  return chart.series.length < 2 || chart.series.length > 8 ? [] : chart.series.filter((series) => series.x.length);
}

// The margin for these names, a third of the chart at most; `width` is that of the chart in pixels.
function marginOf(shown, width) {
  const letters = Math.max(0, ...shown.map((series) => Math.min(series.name.length, NAME_LETTERS)));
  return Math.max(MARGIN.r, Math.min(LETTER_PX * letters + 16, width / 3));
}

// Names that would lie on each other move down; `height` is that of the plot in pixels.
function names(chart, shown, height) {
  const [low, high] = chart.y_range ?? extent(shown.flatMap((series) => series.y));
  let lowest = -Infinity;
  return shown.sort((a, b) => b.y.at(-1) - a.y.at(-1)).map((series) => {
    const place = (height * (high - series.y.at(-1))) / (high - low || 1); // in pixels from the top
    lowest = Math.max(place, lowest + NAME_PX);
    return {
      xref: "paper", x: 1, y: series.y.at(-1), text: escaped(series.name), xanchor: "left", xshift: 6, showarrow: false,
      yshift: place - lowest, font: { color: series.colour || style("--accent"), size: 12 },
    };
  });
}

function extent(values) {
  return [Math.min(...values), Math.max(...values)];
}

function escaped(text) {
  return text.slice(0, NAME_LETTERS).replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

export async function draw(figure) {
  const chart = JSON.parse(figure.querySelector("script").textContent);
  const Plotly = await plotly();
  const ink = style("--ink"), line = style("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const plot = figure.querySelector(".plot"), shown = named(chart);
  await Plotly.newPlot(plot, traces(chart), {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 },
    margin: { ...MARGIN, r: marginOf(shown, plot.clientWidth) }, showlegend: chart.series.length > 8,
    annotations: names(chart, shown, plot.clientHeight - MARGIN.t - MARGIN.b),
    xaxis: { ...axis, title: { text: chart.x_title } },
    yaxis: { ...axis, title: { text: chart.y_title }, range: chart.y_range ?? undefined },
  }, { displayModeBar: false, responsive: true });
  figure.dataset.drawn = "yes";
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watcher.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "200px" });
for (const figure of document.querySelectorAll("figure.chart")) watcher.observe(figure);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const figure of document.querySelectorAll("figure.chart[data-drawn]")) draw(figure);
});
