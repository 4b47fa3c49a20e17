"use strict";
// Without this the page is whole and reloads itself. With it, the same address sends
// the part that changes, as the server renders it, escaped there.
const live = document.getElementById("live");
const state = document.getElementById("state");
let stream;

function show(html) {
  const selection = document.getSelection();
  if (!selection.isCollapsed && live.contains(selection.anchorNode)) return; // somebody copies
  const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  live.innerHTML = html;
  if (focused !== null) live.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function open() {
  stream = new EventSource(location.href);
  stream.addEventListener("view", (event) => {
    show(event.data);
    state.textContent = "live";
    state.className = "live";
  });
  stream.addEventListener("error", () => {
    state.className = "";
    if (stream.readyState !== EventSource.CLOSED) {
      state.textContent = "reconnecting …";
      return;
    }
    state.textContent = "not live, reloads";
    setTimeout(() => location.reload(), 10000);
  });
}

// A page that nobody looks at holds no place.
document.addEventListener("visibilitychange", () => {
  stream?.close();
  if (!document.hidden) open();
});
// One that is left, too; the browser may bring it back from its cache.
addEventListener("pagehide", () => stream?.close());
addEventListener("pageshow", (event) => { if (event.persisted) open(); });
if (!document.hidden) open();
