// The map of a zoo on a canvas. Names come from other people's files: they are set as text, never as HTML.
const events = ['open'];
const canvas = element.querySelector('canvas'), tooltip = element.querySelector('.ld-tip'), legend = element.querySelector('.ld-legend');
const status = element.querySelector('.ld-said'), searchInput = element.querySelector('.ld-find'), colourSelect = element.querySelector('select');
const PALETTE = ['#0f766e', '#d97706', '#7c3aed', '#db2777', '#2563eb', '#65a30d', '#b91c1c', '#0891b2', '#a16207', '#9333ea'];
const OTHER_COLOUR = '#94a3b8';
const MAX_PREVIEWS = 350; // with more models on screen, dots are drawn instead
const MAX_CACHED_PREVIEWS = 400, PREVIEW_SIZE = 34, DOT_RADIUS = 18; // pixels; a dot is hit within this radius
let map = {models: []}, view = {x: 0.5, y: 0.5, zoom: 1}; // the view's centre in map coordinates from 0 to 1
let current = -1; // index of the highlighted model
let onlyGroup = null; // the group of colours chosen in the legend
let matches = null; // indices of the models that the search finds; null without a search
let redrawRequested = false, drag = null;
const touches = new Map(), previews = new Map();

const css = (name) => getComputedStyle(element).getPropertyValue(name).trim();
const mapWidth = () => (canvas.clientWidth - 60) * view.zoom, mapHeight = () => (canvas.clientHeight - 60) * view.zoom; // pixels
const screenX = (x) => canvas.clientWidth / 2 + (x - view.x) * mapWidth(), screenY = (y) => canvas.clientHeight / 2 + (y - view.y) * mapHeight();
const previewSize = () => Math.min(76, PREVIEW_SIZE * Math.sqrt(view.zoom));
const groups = () => map[colourSelect.value]; // {words: names of the groups, of: group of each model, or -1}
const groupName = (groups, i) => (groups.of[i] < 0 ? '' : groups.words[groups.of[i]]);

function colourOf(i) {
  const group = groups().of[i];
  if (group < 0) return OTHER_COLOUR;
  if (colourSelect.value === 'concepts') return `hsl(${groups().hues[group]} 65% 48%)`;
  return group < PALETTE.length ? PALETTE[group] : OTHER_COLOUR;
}
const dimmed = (i) => (matches && !matches.has(i)) || (onlyGroup !== null && groups().of[i] !== onlyGroup);

function redraw() {
  if (!redrawRequested) { redrawRequested = true; requestAnimationFrame(() => { redrawRequested = false; paint(); }); }
}

function paint() {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const visible = [];
  for (let i = 0; i < map.models.length; i++) {
    const x = screenX(map.x[i]), y = screenY(map.y[i]);
    if (x > -80 && y > -80 && x < width + 80 && y < height + 80) visible.push([i, x, y]);
  }
  visible.sort((a, b) => dimmed(b[0]) - dimmed(a[0]));
  const withPreviews = visible.length <= MAX_PREVIEWS;
  for (const [i, x, y] of visible) paintModel(context, i, x, y, withPreviews);
  if (current >= 0) paintRing(context, screenX(map.x[current]), screenY(map.y[current]), withPreviews ? previewSize() * 0.75 : 8);
  context.font = `12px ${css('--font') || 'sans-serif'}`;
  for (const upload of map.uploads || []) paintStar(context, screenX(upload.x), screenY(upload.y), upload.name.slice(0, 40));
}

function paintModel(context, i, x, y, withPreviews) {
  context.globalAlpha = dimmed(i) ? 0.12 : 1;
  const preview = withPreviews && map.drawn[i] ? previewOf(i) : null;
  context.fillStyle = colourOf(i);
  context.beginPath();
  if (preview) {
    const half = previewSize() / 2;
    context.roundRect(x - half - 2, y - half - 2, 2 * half + 4, 2 * half + 4, 6);
    context.fill();
    context.drawImage(preview, x - half, y - half, 2 * half, 2 * half);
  } else {
    context.arc(x, y, withPreviews ? 6 : 4, 0, 7);
    context.fill();
  }
  context.globalAlpha = 1;
}

function previewOf(i) {
  const id = map.models[i];
  if (!previews.has(id)) {
    if (previews.size >= MAX_CACHED_PREVIEWS) previews.delete(previews.keys().next().value);
    const image = new Image();
    image.onload = redraw;
    image.src = `drawings/${encodeURIComponent(id)}.png`;
    previews.set(id, image);
  }
  const image = previews.get(id);
  return image.complete && image.naturalWidth ? image : null;
}

function paintRing(context, x, y, radius) {
  context.strokeStyle = css('--body-text-color');
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.stroke();
}

function paintStar(context, x, y, name) {
  context.beginPath();
  for (let k = 0; k < 10; k++) context.lineTo(x + Math.sin(k * Math.PI / 5) * (k % 2 ? 6 : 14), y - Math.cos(k * Math.PI / 5) * (k % 2 ? 6 : 14));
  context.closePath();
  context.fillStyle = '#facc15';
  context.strokeStyle = css('--body-text-color');
  context.lineWidth = 1.5;
  context.fill();
  context.stroke();
  context.strokeStyle = css('--background-fill-primary');
  context.lineWidth = 4;
  context.strokeText(name, x + 18, y + 4);
  context.fillStyle = css('--body-text-color');
  context.fillText(name, x + 18, y + 4);
}

function nearest(x, y) {
  let best = -1, least = (map.models.length <= MAX_PREVIEWS ? previewSize() / 2 : DOT_RADIUS) ** 2;
  for (let i = 0; i < map.models.length; i++) {
    const distance = (screenX(map.x[i]) - x) ** 2 + (screenY(map.y[i]) - y) ** 2;
    if (distance < least && !dimmed(i)) { least = distance; best = i; }
  }
  return best;
}

function highlight(i) {
  current = i;
  tooltip.hidden = i < 0;
  if (i >= 0) {
    const place = [groupName(map.families, i), groupName(map.folders, i)].filter(Boolean).join(' · ');
    const lines = [map.names[i], groupName(map.concepts, i), place].filter(Boolean);
    tooltip.replaceChildren(...lines.map((line) => { const p = document.createElement('p'); p.dir = 'auto'; p.textContent = line; return p; }));
    if (map.drawn[i]) {
      const image = new Image(128, 128);
      image.alt = '';
      image.src = `drawings/${encodeURIComponent(map.models[i])}.png`;
      tooltip.prepend(image);
    }
    const x = screenX(map.x[i]), y = screenY(map.y[i]);
    tooltip.style.left = `${Math.max(4, Math.min(canvas.clientWidth - 180, x + 30))}px`;
    tooltip.style.top = `${Math.max(4, Math.min(canvas.clientHeight - 250, y - 60))}px`;
    status.textContent = `${lines.join(', ')}. Press Enter to open it.`;
  }
  redraw();
}

function zoomBy(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = view.zoom;
  view.zoom = Math.max(0.8, Math.min(60, view.zoom * factor));
  const gained = view.zoom / before - 1;
  view.x += gained * (x - canvas.clientWidth / 2) / mapWidth();
  view.y += gained * (y - canvas.clientHeight / 2) / mapHeight();
  highlight(-1);
}

function reset() { view = {x: 0.5, y: 0.5, zoom: 1}; highlight(-1); }

// Highlights the next model in a direction: the nearest within 45 degrees, those straight ahead preferred.
function move(dx, dy) {
  if (current < 0) return highlight(map.models.length ? 0 : -1);
  let best = -1, least = Infinity;
  for (let i = 0; i < map.models.length; i++) {
    const x = map.x[i] - map.x[current], y = map.y[i] - map.y[current], ahead = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
    if (i !== current && !dimmed(i) && ahead > aside && ahead + 2 * aside < least) { least = ahead + 2 * aside; best = i; }
  }
  if (best < 0) return;
  view.x += Math.abs(screenX(map.x[best]) - canvas.clientWidth / 2) > canvas.clientWidth * 0.45 ? map.x[best] - view.x : 0;
  view.y += Math.abs(screenY(map.y[best]) - canvas.clientHeight / 2) > canvas.clientHeight * 0.45 ? map.y[best] - view.y : 0;
  highlight(best);
}

function openCurrent() { if (current >= 0) trigger('open', {id: map.models[current]}); }

function updateLegend() {
  onlyGroup = null;
  const names = colourSelect.value === 'concepts' ? [] : groups().words.slice(0, PALETTE.length);
  legend.replaceChildren(...names.map((name, i) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'ld-act';
    button.setAttribute('aria-pressed', 'false');
    const dot = document.createElement('i');
    dot.style.background = PALETTE[i];
    button.append(dot, name.slice(0, 40));
    button.onclick = () => {
      onlyGroup = onlyGroup === i ? null : i;
      [...legend.children].forEach((other, k) => other.setAttribute('aria-pressed', String(onlyGroup === k)));
      redraw();
    };
    return button;
  }));
  if (colourSelect.value === 'concepts') legend.textContent = 'Similar concepts have similar colours.';
  else if (groups().words.length > PALETTE.length) legend.append(` ${groups().words.length - PALETTE.length} more in grey`);
  redraw();
}

function updateMatches() {
  const text = searchInput.value.trim().toLowerCase();
  const matching = (i) => `${map.names[i]} ${groupName(map.concepts, i)}`.toLowerCase().includes(text);
  matches = text ? new Set([...map.models.keys()].filter(matching)) : null;
  status.textContent = matches ? `${matches.size} of ${map.models.length} models` : `${map.models.length} models`;
  redraw();
}

function positionOf(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

canvas.addEventListener('pointerdown', (event) => {
  touches.set(event.pointerId, positionOf(event));
  canvas.setPointerCapture(event.pointerId);
  drag = {from: positionOf(event), moved: false, tapped: event.pointerType === 'touch' ? current : null};
});
canvas.addEventListener('pointermove', (event) => {
  const [x, y] = positionOf(event);
  if (!touches.size) return highlight(nearest(x, y));
  const before = touches.get(event.pointerId);
  if (!before) return;
  if (touches.size === 2) {
    const other = [...touches].find(([id]) => id !== event.pointerId)[1];
    zoomBy(Math.hypot(x - other[0], y - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), (x + other[0]) / 2, (y + other[1]) / 2);
  } else if (drag.moved || Math.hypot(x - drag.from[0], y - drag.from[1]) > 5) {
    drag.moved = true;
    view.x -= (x - before[0]) / mapWidth();
    view.y -= (y - before[1]) / mapHeight();
    highlight(-1);
  }
  touches.set(event.pointerId, [x, y]);
});
// A click opens a model. A touch shows its tooltip first, and a second touch opens it.
canvas.addEventListener('pointerup', (event) => {
  touches.delete(event.pointerId);
  if (!drag || drag.moved) return;
  const hit = nearest(...positionOf(event)), opens = drag.tapped === null || drag.tapped === hit;
  highlight(hit);
  if (opens) openCurrent();
});
canvas.addEventListener('pointercancel', (event) => touches.delete(event.pointerId));
canvas.addEventListener('pointerleave', () => { if (!touches.size && document.activeElement !== canvas) highlight(-1); });
canvas.addEventListener('wheel', (event) => { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...positionOf(event)); }, {passive: false});
canvas.addEventListener('keydown', (event) => {
  const keys = {
    ArrowLeft: () => move(-1, 0), ArrowRight: () => move(1, 0), ArrowUp: () => move(0, -1), ArrowDown: () => move(0, 1), Enter: openCurrent,
    '+': () => zoomBy(1.3), '=': () => zoomBy(1.3), '-': () => zoomBy(1 / 1.3), 0: reset, Escape: () => highlight(-1),
  };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
element.querySelector('.ld-in').onclick = () => zoomBy(1.4);
element.querySelector('.ld-out').onclick = () => zoomBy(1 / 1.4);
element.querySelector('.ld-all').onclick = reset;
colourSelect.onchange = updateLegend;
searchInput.oninput = updateMatches;
new ResizeObserver(redraw).observe(canvas);
new MutationObserver(redraw).observe(document.body, {attributes: true, attributeFilter: ['class']});

function load() {
  map = props.map ? JSON.parse(props.map) : {models: []};
  current = -1;
  if (map.models.length) { updateLegend(); updateMatches(); }
  redraw();
}
watch('map', load);
load();
