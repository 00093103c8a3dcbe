// Keeps the status page up to date.  Without it the page is whole, only as it was when loaded.
"use strict";

(() => {
  const events = document.body.dataset.events;
  const badge = document.getElementById("stream");
  if (!events || !badge) return;

  let source = null;
  let isFetching = false;
  let fetchedAt = 0;

  const tell = (state, text) => {
    if (badge.dataset.state === state) return;
    badge.dataset.state = state;
    badge.textContent = text;
  };

  const find = (attribute, key) => document.querySelectorAll(`[${attribute}="${CSS.escape(key)}"]`);

  const writers = {
    texts: (key, text) => find("data-live", key).forEach((place) => {
      if (place.textContent !== text) place.textContent = text;
    }),
    states: (key, state) => find("data-live", key).forEach((place) => { place.dataset.state = state; }),
    points: (key, points) => find("data-points", key).forEach((place) => {
      if (place.tagName === "PROGRESS") place.value = Number(points);
      else place.setAttribute("points", points);
    }),
    links: (key, id) => find("data-link", key).forEach((place) => {
      place.href = `/requests/${encodeURIComponent(id)}`;
    }),
  };

  // Other rows or forms than before: the server renders them, in the same page as ever.
  const refresh = async () => {
    if (isFetching || Date.now() - fetchedAt < 1500) return;
    isFetching = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      fetchedAt = Date.now();
      if (answer.status === 401 || answer.status === 404) { location.reload(); return; }
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const fresh of page.querySelectorAll("[data-region]")) {
        const old = document.getElementById(fresh.id);
        if (!old || old.dataset.shape === fresh.dataset.shape) continue;
        const focused = document.activeElement;
        const isTyping = old.contains(focused) && focused.tagName === "INPUT";
        if (isTyping) continue;  // never take a field away from somebody who writes in it
        const place = old.contains(focused) ? focused.getAttribute("href") : null;
        old.replaceChildren(...fresh.childNodes);
        old.dataset.shape = fresh.dataset.shape;
        if (place) old.querySelector(`[href="${CSS.escape(place)}"]`)?.focus();
      }
    } catch {
      // The stream tells when the proxy is there again.
    } finally {
      isFetching = false;
    }
  };

  const take = (message) => {
    const changes = JSON.parse(message.data);
    for (const [kind, write] of Object.entries(writers)) {
      for (const [key, value] of Object.entries(changes[kind] ?? {})) write(key, value);
    }
    Object.assign(shapes, changes.shapes ?? {});
    for (const [name, shape] of Object.entries(shapes)) {
      const region = document.getElementById(name);
      if (region && region.dataset.shape !== shape) { refresh(); break; }
    }
  };

  const shapes = {};

  const open = () => {
    if (source) return;
    source = new EventSource(events);
    source.onopen = () => tell("live", "live");
    source.onmessage = take;
    source.onerror = () => tell("lost", "connection lost");
  };

  const close = () => {
    source?.close();
    source = null;
    tell("off", "paused");
  };

  // A tab that nobody sees needs no stream; browsers allow few connections to one address.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
})();
