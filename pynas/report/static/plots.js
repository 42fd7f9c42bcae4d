// Plots are drawn when they come near the window, in the colours of the page.
const plots = (() => {
  const CONFIG = {displaylogo: false, responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"]};
  const MOST = 4;  // plots on the graphics card; browsers take the context of the first of some sixteen away
  const places = [...document.querySelectorAll(".plot")], dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Set(), near = new Set();
  const webgl = (() => {
    try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; }
  })();

  function colours() {
    const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue(name).trim();
    return {ink: of("--ink"), grid: of("--grid"), card: of("--card"), muted: of("--muted")};
  }

  function themed(layout) {
    const {ink, grid, card, muted} = colours(), phone = innerWidth <= 480;
    layout.font = {...layout.font, color: ink, ...(phone ? {size: 12} : {})};
    layout.hoverlabel = {...layout.hoverlabel, bgcolor: card, font: {size: 13, color: ink}};
    layout.modebar = {...layout.modebar, color: muted, activecolor: ink};
    for (const key of Object.keys(layout).filter(name => /^[xy]axis/.test(name)))
      layout[key] = {...layout[key], gridcolor: grid};
    if (phone) layout.margin = {...layout.margin, l: Math.min(layout.margin.l, 54), r: 12};
    return layout;
  }

  // On a phone the scale of colours lies below the plot, not beside it.
  function narrowed(spec, place) {
    const bars = spec.data.map(trace => trace.marker?.colorbar).filter(Boolean);
    if (innerWidth > 480 || !bars.length) return;
    bars.forEach(bar => {
      Object.assign(bar, {orientation: "h", y: -0.2, yanchor: "top", thickness: 10, xpad: 0});
      bar.title = {...bar.title, text: bar.title.text.replace("<br>", " "), side: "bottom"};
    });
    const height = Math.min(spec.layout.height, 460);
    spec.layout.height = height;
    spec.layout.margin = {...spec.layout.margin, b: 130};
    place.style.height = `${height}px`;
  }

  const message = (place, text) => {
    place.textContent = text;
    place.classList.add("absent");
    place.style.height = "auto";
  };

  async function draw(place) {
    if (drawn.has(place)) return;
    const spec = JSON.parse(place.nextElementSibling.textContent);
    if (typeof Plotly === "undefined")
      return message(place, `${document.body.dataset.plotly} is missing: it belongs into the folder of this page. ` +
        "With --inline a page is a single file.");
    for (const trace of spec.data) {
      if (trace.type === "parcoords" && !webgl)
        return message(place, "This plot needs WebGL, which this browser does not have or does not allow.");
      if (trace.type === "scattergl" && !webgl) trace.type = "scatter";
      if (trace.meta === "rows" && architectures) {
        trace.customdata = Array.from(trace.customdata.bdata ? unpacked(trace.customdata) : trace.customdata);
        trace.text = trace.customdata.map(architectures.described);
      }
    }
    narrowed(spec, place);
    place.dataset.gl = spec.data.some(trace => /gl$|parcoords/.test(trace.type)) ? "yes" : "";
    drawn.add(place);
    await Plotly.newPlot(place, spec.data, themed(spec.layout), CONFIG);
    place.on("plotly_click", event => {
      const point = event.points.find(each => each.data.meta === "rows");
      if (point && architectures) architectures.show(point.customdata);
    });
    for (const other of drawn) {
      if ([...drawn].filter(each => each.dataset.gl).length <= MOST) break;
      if (other.dataset.gl && !near.has(other)) {
        Plotly.purge(other);
        drawn.delete(other);
      }
    }
  }

  const seen = new IntersectionObserver(async entries => {
    for (const {target, isIntersecting} of entries) isIntersecting ? near.add(target) : near.delete(target);
    for (const {target, isIntersecting} of entries) if (isIntersecting && near.has(target)) await draw(target);
    document.documentElement.dataset.ready = Math.round(performance.now());
  }, {rootMargin: "200px 0px"});
  function start() {
    places.forEach(place => seen.observe(place));
    if (!places.length) document.documentElement.dataset.ready = Math.round(performance.now());
  }
  // The library takes a second to read: when the window shows the rest of the page, the numbers and the table.
  function load() {
    const script = document.createElement("script"), inside = document.getElementById("library");
    if (inside) {
      script.textContent = inside.textContent;
      document.head.append(script);
      return start();
    }
    script.onload = script.onerror = start;
    script.src = document.body.dataset.plotly;
    document.head.append(script);
  }
  if (places.length) requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(load, 20)));
  else start();

  function paint() {
    for (const place of drawn) {
      const {font, hoverlabel, modebar, ...rest} = themed({...place.layout});
      const axes = Object.fromEntries(Object.keys(rest).filter(name => /^[xy]axis/.test(name))
        .map(name => [`${name}.gridcolor`, rest[name].gridcolor]));
      Plotly.relayout(place, {font, hoverlabel, modebar, ...axes});
    }
  }
  dark.addEventListener("change", paint);
  addEventListener("beforeprint", () => typeof Plotly !== "undefined" && places.forEach(draw));
})();
