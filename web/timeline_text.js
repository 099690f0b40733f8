// The text of LIVEdit Timeline: reading its lines as the node does (sampling/instructions.py), and changing them.

const LINE =
  /^([0-9]{1,6}(?::[0-9]{1,2}){0,2}(?:\.[0-9]*)?)(?:\s*s(?=[-–—:|\s]|$))?(?:\s*(?:[-–—|]|:(?![0-9]))\s*|\s+|$)/i;
const SECOND_TIME = /^[0-9]+:[0-9]/;
const ENDS = /\r\n|\r|\n/;
const NEAR = 0.5; // seconds from a line's time within which it moves in place of a new one

/** Signs of double width, as Chinese keyboards write them, at single width: one for one. */
function plain(line) {
  return line.replace(/[！-～]/g, (sign) => String.fromCharCode(sign.charCodeAt(0) - 0xfee0));
}

function seconds(time) {
  const parts = time.split(":").map(Number);
  if (parts.slice(1).some((part) => part >= 60)) return null;
  return parts.reduce((sum, part) => 60 * sum + part);
}

/** What stands in a line: its time in seconds, its instruction, and what is wrong with it. */
function readLine(text) {
  const match = plain(text).match(LINE);
  const start = match ? seconds(match[1]) : null;
  if (start === null) return { wrong: "time" };
  const instruction = text.slice(match[0].length).trim();
  if (!instruction) return { start, wrong: "instruction" };
  if (SECOND_TIME.test(plain(text).slice(match[0].length))) return { start, wrong: "second" };
  return { start, instruction };
}

/**
 * The lines of a timeline that are not empty.
 *
 * @param length seconds of the edit, null if that is not known.
 * @returns those that hold, as {start, instruction, line}, and those that are wrong, as {wrong, text, line}. `line`
 * counts from 1; `wrong` is a key of the words for it.
 */
export function readTimeline(text, length = null) {
  const good = [], wrong = [];
  text.replaceAll("\ufeff", "").split(ENDS).forEach((whole, index) => {
    const trimmed = whole.trim(), line = index + 1;
    if (!trimmed) return;
    const read = readLine(trimmed);
    if (!read.wrong && !good.length && !wrong.length && read.start > 0) read.wrong = "first";
    if (!read.wrong && good.length && read.start <= good.at(-1).start) read.wrong = "order";
    if (!read.wrong && length !== null && read.start >= length) read.wrong = "end";
    (read.wrong ? wrong : good).push({ ...read, text: trimmed, line });
  });
  if (!good.length && !wrong.length) wrong.push({ wrong: "empty", text: "", line: 0 });
  return { good, wrong };
}

/** Seconds as 0:12.5, as short as it gets. */
export function clock(time) {
  const hundredths = Math.floor(100 * time + 1e-3); // so that the first picture of a shot is never before it
  const minutes = Math.floor(hundredths / 6000), hours = Math.floor(minutes / 60);
  const [whole, rest] = ((hundredths % 6000) / 100).toFixed(2).split(".");
  const fraction = rest.replace(/0+$/, "");
  const lead = hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}` : minutes;
  return `${lead}:${whole.padStart(2, "0")}${fraction && "."}${fraction}`;
}

/** The text with another time in one of its lines. */
export function withTime(text, line, time) {
  const lines = text.split(ENDS);
  const [, blank, rest] = lines[line - 1].match(/^([\s\ufeff]*)(.*)$/);
  lines[line - 1] = blank + clock(time) + rest.slice(plain(rest).match(LINE)[1].length);
  return lines.join("\n");
}

/**
 * The text with a line that begins at a time: the one that begins near it, moved there, or else a new one with the
 * instruction that holds there, so that the edit stays as it is until that is changed.
 */
export function withLineAt(text, time) {
  const { good } = readTimeline(text);
  const near = good.slice(1).filter(({ start }) => Math.abs(start - time) <= NEAR);
  near.sort((a, b) => Math.abs(a.start - time) - Math.abs(b.start - time));
  if (near.length) return withTime(text, near[0].line, time);
  if (good.some(({ start }) => clock(start) === clock(time))) return text;
  const before = good.findLast(({ start }) => start < time);
  if (!before) return text;
  const lines = text.split(ENDS);
  lines.splice(before.line, 0, `${clock(time)} ${before.instruction}`);
  return lines.join("\n");
}
