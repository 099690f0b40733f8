// A bar of time: what an edit follows when, where the shots of its clip begin, and both moved by mouse or keys.

import { clock } from "./timeline_text.js";

const STYLE = `
.liveditor-timeline {
  position: relative; width: 100%; height: 100%; box-sizing: border-box; padding: 2px 10px; overflow: hidden;
  color: #ddd; font: 11px/14px sans-serif; user-select: none; touch-action: none;
}
.liveditor-timeline .shots { position: relative; height: 14px; }
.liveditor-timeline .track {
  position: relative; height: 30px; background: #15151a; border-radius: 4px; overflow: hidden; cursor: copy;
}
.liveditor-timeline .part {
  position: absolute; top: 0; bottom: 0; box-sizing: border-box; padding: 0 7px; line-height: 30px; color: #fff;
  overflow: hidden; white-space: nowrap; text-overflow: ellipsis; border-left: 1px solid #15151a;
}
.liveditor-timeline .shot {
  position: absolute; top: 0; width: 13px; height: 14px; margin-left: -6.5px; padding: 0; border: 0; cursor: pointer;
  background: #ffd24a; clip-path: polygon(15% 20%, 85% 20%, 50% 90%);
}
.liveditor-timeline .shot:hover, .liveditor-timeline .shot:focus-visible { background: #fff; outline: none; }
.liveditor-timeline .cut { position: absolute; top: 0; bottom: 0; width: 0; border-left: 1px dashed #ffd24a99; }
.liveditor-timeline .grip {
  position: absolute; top: 0; bottom: 0; width: 9px; margin-left: -4.5px; cursor: ew-resize;
  background: linear-gradient(#fff, #fff) center / 3px 16px no-repeat;
}
.liveditor-timeline .grip:hover, .liveditor-timeline .grip:focus-visible {
  background-size: 3px 100%; outline: none;
}
.liveditor-timeline .ticks { position: relative; height: 15px; opacity: 0.75; font-size: 10px; }
.liveditor-timeline .ticks span { position: absolute; top: 1px; white-space: nowrap; }
.liveditor-timeline .now {
  position: absolute; top: 16px; height: 45px; width: 0; border-left: 1px solid #fff; pointer-events: none;
}
.liveditor-timeline .now span {
  position: absolute; top: 31px; padding: 0 3px; border-radius: 3px; background: #fff; color: #111; font-size: 10px;
  white-space: nowrap;
}
.liveditor-timeline .say { height: 30px; line-height: 15px; overflow: hidden; opacity: 0.75; }
.liveditor-timeline .say div { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.liveditor-timeline .say.wrong { color: #ff7b72; opacity: 1; }
.liveditor-timeline [hidden] { display: none; }
`;
export const HEIGHT = 112; // pixels, 20 of them the margins that the canvas keeps
const HUES = [212, 150, 28, 282, 336, 182, 52, 250];
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const LABEL = 46; // pixels that a tick's label takes with the room around it
const SNAP = 6; // pixels from a shot within which what is dragged goes to it
const SMALLEST = 0.01; // seconds of an instruction
const KEY_STEP = 0.1; // seconds; ten with shift

function element(tag, className, properties = {}, style = {}) {
  const made = Object.assign(document.createElement(tag), { className, ...properties });
  Object.assign(made.style, style);
  return made;
}

/**
 * The bar.
 *
 * @param act what to do: `put(time)` a line at a time, `move(line, time)` one that is there.
 * @returns the root element, and `draw`.
 */
export function timelineBar(act) {
  const root = element("div", "liveditor-timeline");
  const [shots, track, ticks, say] = ["shots", "track", "ticks", "say"].map((name) => element("div", name));
  const now = element("div", "now", { hidden: true }), label = element("span", "");
  now.append(label);
  root.append(element("style", "", { textContent: STYLE }), shots, track, ticks, now, say);
  let drawn = null; // what the bar shows
  let dragged = null; // the line whose start is dragged
  let pressed = null; // what the mouse went down on

  const at = (time) => `${(100 * Math.min(time, drawn.length)) / drawn.length}%`;
  const startOf = (line) => drawn.lines.find((each) => each.line === Number(line)).start;
  const timeAt = (event) => {
    const { left, width } = track.getBoundingClientRect();
    const time = drawn.length * Math.min(1, Math.max(0, (event.clientX - left) / width));
    const reach = SNAP * drawn.length / width;
    const near = drawn.shots.filter((shot) => Math.abs(shot - time) <= reach);
    near.sort((a, b) => Math.abs(a - time) - Math.abs(b - time));
    return near[0] ?? time;
  };

  function show(time) {
    now.hidden = time === null;
    if (time === null) return;
    const share = time / drawn.length;
    now.style.left = `calc(10px + ${share} * (100% - 20px))`;
    label.textContent = clock(time);
    label.style.transform = `translateX(-${100 * share}%)`;
  }

  function move(line, time) {
    const index = drawn.lines.findIndex((each) => each.line === line);
    if (index < 1) return;
    const first = drawn.lines[index - 1].start + SMALLEST;
    const last = (drawn.lines[index + 1]?.start ?? drawn.length) - SMALLEST;
    const allowed = Math.max(first, Math.min(last, time));
    act.move(line, allowed);
    show(allowed);
  }

  function drawTicks() {
    const width = track.clientWidth || 300;
    const step = STEPS.find((each) => each * width / drawn.length >= LABEL) ?? drawn.length;
    const times = [];
    for (let i = 0; i * step < drawn.length; i++) times.push(i * step);
    const end = element("span", "end", { textContent: clock(drawn.length) }, { right: 0 });
    const shown = times.filter((time) => (drawn.length - time) * width / drawn.length >= 1.5 * LABEL);
    ticks.replaceChildren(
      ...shown.map((time) =>
        element("span", "", { textContent: clock(time) }, {
          left: at(time),
          transform: time ? "translateX(-50%)" : "",
        })
      ),
      end,
    );
  }

  /**
   * Show a timeline.
   *
   * @param state lines {start, instruction, line} in order; length in seconds; shots, when they begin; say, lines of
   * words; whether they are of something wrong; names of what can be clicked.
   */
  function draw(state) {
    drawn = state;
    const kinds = [...new Set(state.lines.map(({ instruction }) => instruction))];
    const focused = root.contains(document.activeElement) ? document.activeElement.dataset : {};
    track.replaceChildren(
      ...state.lines.map(({ start, instruction }, index) => {
        const end = Math.min(state.length, state.lines[index + 1]?.start ?? state.length);
        const hue = HUES[kinds.indexOf(instruction) % HUES.length];
        return element("div", "part", { textContent: instruction, title: `${clock(start)} ${instruction}` }, {
          left: at(start),
          width: `${(100 * Math.max(0, end - start)) / state.length}%`,
          background: `hsl(${hue} 45% 36%)`,
        });
      }),
      ...state.shots.map((shot) => element("div", "cut", {}, { left: at(shot) })),
      ...state.lines.slice(1).map(({ start, instruction, line }) => {
        const grip = element("div", "grip", { tabIndex: 0, role: "slider" }, { left: at(start) });
        grip.dataset.line = line;
        grip.ariaLabel = `${state.names.border} ${instruction}`;
        Object.assign(grip, { ariaValueMin: 0, ariaValueMax: state.length, ariaValueNow: start });
        grip.ariaValueText = clock(start);
        return grip;
      }),
    );
    shots.replaceChildren(...state.shots.map((shot) => {
      const title = `${state.names.shot} ${clock(shot)}`;
      const mark = element("button", "shot", { type: "button", title, ariaLabel: title }, { left: at(shot) });
      mark.dataset.shot = shot;
      return mark;
    }));
    drawTicks();
    say.className = state.wrong ? "say wrong" : "say";
    say.replaceChildren(...state.say.map((text) => element("div", "", { textContent: text, title: text })));
    if (focused.line) track.querySelector(`[data-line="${focused.line}"]`)?.focus({ preventScroll: true });
    if (focused.shot) shots.querySelector(`[data-shot="${focused.shot}"]`)?.focus({ preventScroll: true });
  }

  for (const name of ["pointerdown", "mousedown", "dblclick"]) {
    root.addEventListener(name, (event) => event.stopPropagation()); // or the node would be dragged along
  }
  root.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = event.target;
    if (!pressed.dataset.line) return;
    dragged = Number(pressed.dataset.line);
    root.setPointerCapture(event.pointerId);
  });
  root.addEventListener("pointermove", (event) => {
    const { line, shot } = event.target.dataset;
    if (dragged !== null) move(dragged, timeAt(event));
    else if (line) show(startOf(line));
    else if (event.target.closest(".track")) show(timeAt(event));
    else show(shot ? Number(shot) : null);
  });
  // Not on click: ComfyUI remembers what can be undone before that, when the button comes up.
  root.addEventListener("pointerup", (event) => {
    if (dragged === null && event.target === pressed) {
      const { shot } = pressed.dataset;
      if (shot) act.put(Number(shot));
      else if (pressed.closest(".track")) act.put(timeAt(event));
    }
    pressed = dragged = null;
  });
  root.addEventListener("pointercancel", () => pressed = dragged = null);
  root.addEventListener("pointerleave", () => dragged === null && show(null));
  root.addEventListener("click", (event) => {
    const { shot } = event.target.dataset;
    if (shot && event.detail === 0) act.put(Number(shot)); // by a key
  });
  root.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const { line, shot } = event.target.dataset;
    if (!direction && !(shot && (event.key === "Enter" || event.key === " "))) return;
    event.stopPropagation(); // they mean other things on the canvas
    if (!direction || !line) return;
    event.preventDefault();
    const step = direction * KEY_STEP * (event.shiftKey ? 10 : 1);
    move(Number(line), startOf(line) + step);
  });
  return { root, draw };
}
