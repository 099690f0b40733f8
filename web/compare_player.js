// A player of two clips at once. They lie next to each other in one video, so that both always show the same frame.

const STYLE = `
.liveditor-compare {
  display: flex; flex-direction: column; width: 100%; height: 100%; min-height: 0; box-sizing: border-box;
  background: #15151a; border-radius: 6px; outline: none; color: #ddd; font: 12px sans-serif;
  overflow: hidden;
}
.liveditor-compare:focus-visible { box-shadow: 0 0 0 2px #6aa7ff inset; }
.liveditor-compare .stage {
  flex: 1; min-height: 0; display: flex; align-items: center; justify-content: center; container-type: size;
}
.liveditor-compare .picture {
  position: relative; aspect-ratio: var(--shape); width: min(100cqw, 100cqh * var(--shape));
}
.liveditor-compare canvas {
  position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none; cursor: ew-resize;
}
.liveditor-compare .name {
  position: absolute; bottom: 4px; max-width: 48%; padding: 1px 6px; border-radius: 4px; background: #0009;
  color: #fff; pointer-events: none; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
.liveditor-compare .name:first-of-type { left: 4px; }
.liveditor-compare .name:last-of-type { right: 4px; }
.liveditor-compare canvas.both { cursor: default; }
.liveditor-compare .hint { padding: 12px; text-align: center; opacity: 0.7; }
.liveditor-compare .bar[hidden], .liveditor-compare .hint[hidden], .liveditor-compare .picture[hidden] {
  display: none;
}
.liveditor-compare .bar {
  display: flex; align-items: center; gap: 4px; padding: 4px 6px; background: #1f1f26;
}
.liveditor-compare .bar input { flex: 1; min-width: 40px; accent-color: #6aa7ff; }
.liveditor-compare .bar output {
  white-space: nowrap; font-variant-numeric: tabular-nums; min-width: 96px; text-align: right;
}
.liveditor-compare button {
  border: 0; background: none; color: inherit; font: inherit; font-size: 14px; line-height: 1;
  padding: 4px 6px; border-radius: 4px; cursor: pointer;
}
.liveditor-compare button:hover, .liveditor-compare button[aria-pressed="true"] { background: #3a3a46; }
`;

// Drawn here, since not every system has these signs in a font. 16 by 16.
const ICONS = {
  play: "M4 2l10 6-10 6z",
  pause: "M3 2h4v12H3zM9 2h4v12H9z",
  back: "M3 2h2v12H3zM14 2v12L6 8z",
  forward: "M11 2h2v12h-2zM2 2v12l8-6z",
  both: "M1 3h14v10H1zM2.5 4.5v7h4.8v-7z",
  muted: "M1 6h3l4-4v12l-4-4H1zM10 6l1-1 1.5 1.5L14 5l1 1-1.5 1.5L15 9l-1 1-1.5-1.5L11 10l-1-1 1.5-1.5z",
  loud: "M1 6h3l4-4v12l-4-4H1zM10 5c2 1.5 2 4.5 0 6zM11.5 3c4 2.5 4 7.5 0 10l-.6-1c3-2 3-6 0-8z",
  fullscreen: "M1 1h5v2H3v3H1zM10 1h5v5h-2V3h-3zM1 10h2v3h3v2H1zM13 10h2v5h-5v-2h3z",
};
const BIG_STEP = 10;
const STALE = 1000; // milliseconds after a seek's end by which its frame is shown, or it is sought again
const TRIES = 3;
const SPLIT_STEP = 0.02;
const CLOSER = 1.25, CLOSEST = 16; // times as large, by one turn of the wheel or key, and at most
const SHARP = 4; // times from which on pixels are shown as squares

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function setIcon(button, name) {
  const attributes = `viewBox="0 0 16 16" width="14" height="14" fill="currentColor" fill-rule="evenodd"`;
  button.innerHTML = `<svg ${attributes} aria-hidden="true"><path d="${ICONS[name]}"/></svg>`;
}

/**
 * The player, without a clip.
 *
 * @param words - texts by name: before, after, hint, frame, play, back, forward, both, muted, fullscreen, help.
 * @returns {{root: HTMLElement, show: function({url, frames, fps, width, height, names}), stop: function()}}
 */
export function comparePlayer(words) {
  const video = element("video", { muted: true, loop: true, preload: "auto", playsInline: true });
  const canvas = element("canvas");
  const names = [words.before, words.after].map((textContent) => element("span", { className: "name", textContent }));
  const picture = element("div", { className: "picture", hidden: true }, canvas, ...names);
  const hint = element("div", { className: "hint", textContent: words.hint });
  const button = (icon, action) => {
    const made = element("button", { type: "button", title: words[icon], ariaLabel: words[icon], onclick: action });
    setIcon(made, icon);
    return made;
  };
  const scrub = element("input", { type: "range", min: 0, max: 0, step: 1, value: 0, ariaLabel: words.frame });
  const time = element("output");
  const play = button("play", () => toggle());
  const sound = button("muted", () => setMuted(!video.muted));
  const both = button("both", () => setBoth(!state.both));
  const steps = [button("back", () => step(-1)), button("forward", () => step(1))];
  const bar = element(
    "div",
    { className: "bar", hidden: true },
    steps[0],
    play,
    steps[1],
    scrub,
    time,
    both,
    sound,
    button("fullscreen", () => fullscreen()),
  );
  const root = element(
    "div",
    { className: "liveditor-compare", tabIndex: 0, title: words.help },
    element("style", { textContent: STYLE }),
    element("div", { className: "stage" }, hint, picture),
    bar,
  );
  const state = { clip: null, frame: 0, split: 0.5, both: false, wanted: null };
  const view = { zoom: 1, x: 0, y: 0 }; // how much larger, and the left and upper edge of what is seen, 0..1

  function draw() {
    const { clip, split } = state;
    if (!clip || video.readyState < 2) return;
    const { width: w, height: h } = clip;
    const size = [state.both ? 2 * w : w, h];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    picture.style.setProperty("--shape", size[0] / size[1]);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = view.zoom < SHARP;
    /** The columns `from` to `to` of what is seen of a clip, `left` in the video, to a place on the canvas. */
    const part = (left, from, to, place) => {
      if (to <= from) return;
      const [x, y] = [left + view.x * w + from / view.zoom, view.y * h];
      context.drawImage(video, x, y, (to - from) / view.zoom, h / view.zoom, place, 0, to - from, h);
    };
    if (state.both) {
      part(0, 0, w, 0);
      part(w, 0, w, w);
    } else {
      const x = Math.round(split * w);
      part(0, 0, x, 0);
      part(w, x, w, x);
      context.fillStyle = "#fff";
      context.fillRect(x - Math.max(1, w / 480), 0, Math.max(2, w / 240), h);
    }
  }

  /** Show it larger or smaller, with the place at x, y of what is seen, 0..1, kept where it is. */
  function zoom(times, x = 0.5, y = 0.5) {
    const next = Math.min(CLOSEST, Math.max(1, view.zoom * times));
    move(x / view.zoom - x / next, y / view.zoom - y / next, next);
  }

  function move(x, y, zoom = view.zoom) {
    const within = (edge) => Math.min(1 - 1 / zoom, Math.max(0, edge));
    Object.assign(view, { zoom, x: within(view.x + x), y: within(view.y + y) });
    draw();
  }

  function at(frame) {
    state.frame = frame;
    scrub.value = frame;
    time.textContent = `${frame + 1} / ${state.clip.frames} · ${(frame / state.clip.fps).toFixed(2)} s`;
    canvas.dataset.frame = frame;
    draw();
  }

  // A seek while another is under way would be dropped by some browsers: the last one wanted follows when that has
  // ended.
  function seek(frame) {
    if (!state.clip) return;
    video.pause();
    tries = 0;
    state.wanted = Math.min(state.clip.frames - 1, Math.max(0, frame));
    if (!video.seeking) video.currentTime = (state.wanted + 0.5) / state.clip.fps; // the middle of a frame's time
  }

  function step(frames) {
    seek((state.wanted ?? state.frame) + frames); // keys may come faster than seeks end
  }

  video.addEventListener("seeked", () => {
    if (!state.clip || state.wanted === null) return;
    const there = Math.floor(video.currentTime * state.clip.fps);
    if (there !== state.wanted) return void (video.currentTime = (state.wanted + 0.5) / state.clip.fps);
    at(state.wanted);
    state.wanted = null; // a loop seeks too, and means its own place
    clearTimeout(late);
    late = setTimeout(again, STALE);
  });
  // A busy browser may leave the frame of an earlier seek in place for good. Not where it tells no frame's number.
  let late, tries = 0, lastShown = null;
  function again() {
    draw();
    if (!state.clip || !video.paused || video.seeking || state.wanted !== null) return;
    if (lastShown === null || lastShown === state.frame || ++tries > TRIES) return;
    state.wanted = state.frame;
    // A seek to where it is already may do nothing: to another time of the same frame.
    video.currentTime = (state.frame + 0.25 + Math.random() / 2) / state.clip.fps;
  }
  // The preview is gone: a server that starts empties its temporary folder.
  video.addEventListener("error", () => showHint(true));

  // Browsers end a seek before its frame can be drawn, by a second where they are busy, and may show the frame of an
  // earlier seek in between: whatever is shown is drawn, for as long as there is a clip.
  function shown(frame) {
    if (state.clip) {
      if (video.paused || state.wanted !== null) draw();
      else at(Math.min(state.clip.frames - 1, frame));
    }
    nextFrame();
  }

  // Some browsers do not tell of every frame that is shown; there the clock has to do.
  function nextFrame() {
    const frameAt = (seconds, round) => state.clip && round(seconds * state.clip.fps);
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback((_, { mediaTime }) => {
        lastShown = frameAt(mediaTime, Math.round);
        shown(lastShown);
      });
    } else setTimeout(() => shown(frameAt(video.currentTime, Math.floor)), video.paused ? 200 : 15);
  }
  nextFrame();

  function toggle() {
    if (!state.clip) return;
    if (video.paused) video.play().catch(() => {}); // its error event has told
    else seek(state.frame);
  }
  for (const name of ["play", "pause"]) {
    video.addEventListener(name, () => setIcon(play, video.paused ? "play" : "pause"));
  }

  function setBoth(value) {
    state.both = value;
    both.ariaPressed = String(value);
    canvas.classList.toggle("both", value);
    draw();
  }

  function setMuted(value) {
    video.muted = value;
    setIcon(sound, value ? "muted" : "loud");
  }

  function setSplit(value) {
    state.split = Math.min(1, Math.max(0, value));
    draw();
  }

  function showHint(shown) {
    hint.hidden = !shown;
    picture.hidden = bar.hidden = shown;
  }

  function fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else root.requestFullscreen();
  }

  /** Where on the picture a pointer is, 0..1 across and down; 1..2 across on the second where both are shown. */
  function placeOf(event) {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.x) / box.width;
    return [state.both ? 2 * x : x, (event.clientY - box.y) / box.height];
  }

  let held = null; // where the picture was taken hold of to move it
  canvas.addEventListener("pointerdown", (event) => {
    const moves = event.shiftKey || event.button === 1 || state.both;
    if (event.button > 1 || moves && view.zoom === 1) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    held = moves ? placeOf(event) : null;
    if (!moves) setSplit(placeOf(event)[0]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    const place = placeOf(event);
    if (held === null) return setSplit(place[0]);
    move((held[0] - place[0]) / view.zoom, (held[1] - place[1]) / view.zoom);
    held = place;
  });
  // After a click on the player; else, and with the control key, the wheel is the graph's.
  root.dataset.captureWheel = "true"; // ComfyUI's word for it
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || !root.contains(document.activeElement)) return;
    event.preventDefault();
    event.stopPropagation();
    const [x, y] = placeOf(event);
    zoom(event.deltaY < 0 ? CLOSER : 1 / CLOSER, x % 1, y);
  }, { passive: false });
  scrub.addEventListener("input", () => seek(Number(scrub.value)));

  const keys = {
    " ": toggle,
    ArrowLeft: ({ shiftKey }) => step(shiftKey ? -BIG_STEP : -1),
    ArrowRight: ({ shiftKey }) => step(shiftKey ? BIG_STEP : 1),
    Home: () => seek(0),
    End: () => seek(Infinity),
    "[": () => setSplit(state.split - SPLIT_STEP),
    "]": () => setSplit(state.split + SPLIT_STEP),
    "+": () => zoom(CLOSER),
    "-": () => zoom(1 / CLOSER),
    0: () => zoom(0),
    b: () => setBoth(!state.both),
    m: () => setMuted(!video.muted),
    f: fullscreen,
  };
  root.addEventListener("keydown", (event) => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    // AltGraph types [ and ] on some keyboards.
    const shortcut = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
    if (!action || shortcut || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    event.stopPropagation(); // they mean other things on the canvas
    action(event);
  });
  for (const name of ["pointerdown", "mousedown", "dblclick"]) {
    root.addEventListener(name, (event) => {
      event.stopPropagation(); // or the node would be dragged along
      if (name === "pointerdown") root.focus({ preventScroll: true });
    });
  }

  return {
    root,
    show(clip) {
      state.clip = clip;
      [words.before, words.after].forEach((name, i) => names[i].textContent = clip.names?.[i] || name);
      Object.assign(view, { zoom: 1, x: 0, y: 0 });
      showHint(false);
      scrub.max = clip.frames - 1;
      video.pause();
      video.src = clip.url;
      video.addEventListener("loadeddata", () => seek(0), { once: true });
    },
    /** Let go of the clip. */
    stop() {
      state.clip = null;
      video.pause();
      video.removeAttribute("src");
      video.load();
    },
  };
}
