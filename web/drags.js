/* Drags as the node takes them: lists of points [x, y] in 0 to 1 of the picture. Nothing here knows the page. */

const DECIMALS = 1e4;

const isShare = (value) => Number.isFinite(value) && value >= 0 && value <= 1;
const isPoint = (point) => Array.isArray(point) && point.length === 2 && point.every(isShare);
const isDrag = (drag) => Array.isArray(drag) && drag.length >= 2 && drag.every(isPoint);

export const inside = (value) => Math.min(1, Math.max(0, value));

/** The drags that a text holds; null where it holds something else, such as drags in pixels, which only the node knows how to take. */
export function parse(text) {
  if (text.trim() === "") return [];
  try {
    const drags = JSON.parse(text);
    return Array.isArray(drags) && drags.every(isDrag) ? drags : null;
  } catch {
    return null;
  }
}

export function format(drags) {
  return JSON.stringify(drags, (_key, value) => (typeof value === "number" ? Math.round(value * DECIMALS) / DECIMALS : value));
}

/** Whether a drag leads anywhere once it is rounded. */
export function hasLength(drag) {
  const [first, ...others] = drag.map((point) => format(point));
  return others.some((point) => point !== first);
}

/** A drag with its `part` ("start", "end" or "whole") moved, by as much of the move as keeps it in the picture. */
export function moved(drag, part, [dx, dy]) {
  const last = drag.length - 1;
  const moves = (index) => part === "whole" || index === (part === "start" ? 0 : last);
  const points = drag.filter((_point, index) => moves(index));
  const limited = (delta, values) => Math.max(-Math.min(...values), Math.min(1 - Math.max(...values), delta));
  const x = limited(dx, points.map((point) => point[0]));
  const y = limited(dy, points.map((point) => point[1]));
  return drag.map((point, index) => (moves(index) ? [point[0] + x, point[1] + y] : point));
}

function distanceToSegment([x, y], [ax, ay], [bx, by]) {
  const length2 = (bx - ax) ** 2 + (by - ay) ** 2;
  const along = length2 ? inside(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length2) : 0;
  return Math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay));
}

/** What of a drag lies within `reach` of a point: "start", "end", "whole" for its shaft, or null. All in one unit. */
export function partAt(drag, point, reach) {
  const start = drag[0];
  const end = drag[drag.length - 1];
  const toStart = Math.hypot(point[0] - start[0], point[1] - start[1]);
  const toEnd = Math.hypot(point[0] - end[0], point[1] - end[1]);
  const ends = Math.min(reach, Math.hypot(end[0] - start[0], end[1] - start[1]) / 3); // leaves a short drag its shaft
  if (Math.min(toStart, toEnd) <= ends) return toEnd <= toStart ? "end" : "start";
  const onShaft = drag.some((next, index) => index && distanceToSegment(point, drag[index - 1], next) <= reach);
  return onShaft ? "whole" : null;
}
