// Vega's bundle brings vegaEmbed. A chart is drawn when it comes into view: in a closed part of the page it has no width.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    const place = entry.target;
    seen.unobserve(place);
    const specification = JSON.parse(document.getElementById(place.dataset.chart).textContent);
    vegaEmbed(place, specification, { actions: false, renderer: "svg" }).then(() => {
      place.dataset.drawn = "yes";
    });
  }
}, { rootMargin: "200px" });
document.querySelectorAll("[data-chart]").forEach((place) => seen.observe(place));
