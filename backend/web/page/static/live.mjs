// Live parts, confirmations and copy buttons. The server renders; this only puts its HTML in place.
const source = document.body.dataset.events;

function listen() {
  const events = new EventSource(source);
  events.addEventListener("part", (event) => {
    const { id, html } = JSON.parse(event.data);
    const element = document.getElementById(id);
    if (element && !element.contains(document.activeElement?.closest("details"))) element.innerHTML = html;
  });
  return events;
}

if (source) {
  let events = listen();
  document.addEventListener("visibilitychange", () => {
    // a hidden page needs no events, and the server has a limit of open streams
    if (document.hidden) events.close();
    else if (events.readyState === EventSource.CLOSED) events = listen();
  });
  addEventListener("pagehide", () => events.close());
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard?.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
});
