// The map of a zoo on a canvas. Names come from strangers' files: they are set as text, never as HTML.
const events = ['open'];
const canvas = element.querySelector('canvas'), tip = element.querySelector('.ld-tip'), legend = element.querySelector('.ld-legend'), said = element.querySelector('.ld-said');
const find = element.querySelector('.ld-find'), colour = element.querySelector('select');
const PALETTE = ['#0f766e', '#d97706', '#7c3aed', '#db2777', '#2563eb', '#65a30d', '#b91c1c', '#0891b2', '#a16207', '#9333ea'];
const OTHER = '#94a3b8', NEAR = 18, MOST_PICTURES = 400, PICTURE = 34;
let map = {models: []}, view = {x: 0.5, y: 0.5, zoom: 1}, at = -1, only = null, found = null, asked = false, drag = null, touches = new Map();
const pictures = new Map();

const css = (name) => getComputedStyle(element).getPropertyValue(name).trim();
const wide = () => (canvas.clientWidth - 60) * view.zoom, high = () => (canvas.clientHeight - 60) * view.zoom; // the map fills the canvas
const screenX = (x) => canvas.clientWidth / 2 + (x - view.x) * wide(), screenY = (y) => canvas.clientHeight / 2 + (y - view.y) * high();
const size = () => Math.min(76, PICTURE * Math.sqrt(view.zoom));
const word = (table, i) => (table.of[i] < 0 ? '' : table.words[table.of[i]]);
const table = () => map[colour.value];

function tint(i) {
  const which = table().of[i];
  if (which < 0) return OTHER;
  if (colour.value === 'concepts') return `hsl(${table().hues[which]} 65% 48%)`;
  return which < PALETTE.length ? PALETTE[which] : OTHER;
}
const dimmed = (i) => (found && !found.has(i)) || (only !== null && table().of[i] !== only);

function redraw() {
  if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; paint(); }); }
}

function paint() {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const shown = [];
  for (let i = 0; i < map.models.length; i++) {
    const x = screenX(map.x[i]), y = screenY(map.y[i]);
    if (x > -80 && y > -80 && x < width + 80 && y < height + 80) shown.push([i, x, y]);
  }
  shown.sort((a, b) => dimmed(b[0]) - dimmed(a[0]));
  const large = shown.length <= 350;
  for (const [i, x, y] of shown) point(pen, i, x, y, large);
  if (at >= 0) ring(pen, screenX(map.x[at]), screenY(map.y[at]), large ? size() * 0.75 : 8);
  pen.font = `12px ${css('--font') || 'sans-serif'}`;
  for (const upload of map.uploads || []) star(pen, screenX(upload.x), screenY(upload.y), upload.name.slice(0, 40));
}

function point(pen, i, x, y, large) {
  pen.globalAlpha = dimmed(i) ? 0.12 : 1;
  const picture = large && map.drawn[i] ? pictureOf(i) : null;
  pen.fillStyle = tint(i);
  pen.beginPath();
  if (picture) {
    const half = size() / 2;
    pen.roundRect(x - half - 2, y - half - 2, 2 * half + 4, 2 * half + 4, 6);
    pen.fill();
    pen.drawImage(picture, x - half, y - half, 2 * half, 2 * half);
  } else {
    pen.arc(x, y, large ? 6 : 4, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
}

function pictureOf(i) {
  const id = map.models[i];
  if (!pictures.has(id)) {
    if (pictures.size >= MOST_PICTURES) pictures.delete(pictures.keys().next().value);
    const image = new Image();
    image.onload = redraw;
    image.src = `drawings/${encodeURIComponent(id)}.png`;
    pictures.set(id, image);
  }
  const image = pictures.get(id);
  return image.complete && image.naturalWidth ? image : null;
}

function ring(pen, x, y, radius) {
  pen.strokeStyle = css('--body-text-color');
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.stroke();
}

function star(pen, x, y, name) {
  pen.beginPath();
  for (let k = 0; k < 10; k++) pen.lineTo(x + Math.sin(k * Math.PI / 5) * (k % 2 ? 6 : 14), y - Math.cos(k * Math.PI / 5) * (k % 2 ? 6 : 14));
  pen.closePath();
  pen.fillStyle = '#facc15';
  pen.strokeStyle = css('--body-text-color');
  pen.lineWidth = 1.5;
  pen.fill();
  pen.stroke();
  pen.strokeStyle = css('--background-fill-primary');
  pen.lineWidth = 4;
  pen.strokeText(name, x + 18, y + 4);
  pen.fillStyle = css('--body-text-color');
  pen.fillText(name, x + 18, y + 4);
}

function nearest(x, y) {
  let best = -1, least = (map.models.length <= 350 ? size() / 2 : NEAR) ** 2;
  for (let i = 0; i < map.models.length; i++) {
    const distance = (screenX(map.x[i]) - x) ** 2 + (screenY(map.y[i]) - y) ** 2;
    if (distance < least && !dimmed(i)) { least = distance; best = i; }
  }
  return best;
}

function point_at(i) {
  at = i;
  tip.hidden = i < 0;
  if (i >= 0) {
    const lines = [map.names[i], word(map.concepts, i), [word(map.families, i), word(map.folders, i)].filter(Boolean).join(' · ')];
    tip.replaceChildren(...lines.filter(Boolean).map((line) => { const p = document.createElement('p'); p.dir = 'auto'; p.textContent = line; return p; }));
    if (map.drawn[i]) {
      const image = new Image(128, 128);
      image.alt = '';
      image.src = `drawings/${encodeURIComponent(map.models[i])}.png`;
      tip.prepend(image);
    }
    const x = screenX(map.x[i]), y = screenY(map.y[i]);
    tip.style.left = `${Math.max(4, Math.min(canvas.clientWidth - 180, x + 30))}px`;
    tip.style.top = `${Math.max(4, Math.min(canvas.clientHeight - 250, y - 60))}px`;
    said.textContent = `${lines.filter(Boolean).join(', ')}. Enter opens it.`;
  }
  redraw();
}

function zoomBy(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = view.zoom;
  view.zoom = Math.max(0.8, Math.min(60, view.zoom * factor));
  const gained = view.zoom / before - 1;
  view.x += gained * (x - canvas.clientWidth / 2) / wide();
  view.y += gained * (y - canvas.clientHeight / 2) / high();
  point_at(-1);
}

function reset() { view = {x: 0.5, y: 0.5, zoom: 1}; point_at(-1); }

function walk(dx, dy) {
  if (at < 0) return point_at(map.models.length ? 0 : -1);
  let best = -1, least = Infinity;
  for (let i = 0; i < map.models.length; i++) {
    const x = map.x[i] - map.x[at], y = map.y[i] - map.y[at], ahead = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
    if (i !== at && !dimmed(i) && ahead > aside && ahead + 2 * aside < least) { least = ahead + 2 * aside; best = i; }
  }
  if (best < 0) return;
  view.x += Math.abs(screenX(map.x[best]) - canvas.clientWidth / 2) > canvas.clientWidth * 0.45 ? map.x[best] - view.x : 0;
  view.y += Math.abs(screenY(map.y[best]) - canvas.clientHeight / 2) > canvas.clientHeight * 0.45 ? map.y[best] - view.y : 0;
  point_at(best);
}

function open() { if (at >= 0) trigger('open', {id: map.models[at]}); }

function tell() {
  only = null;
  const names = colour.value === 'concepts' ? [] : table().words.slice(0, PALETTE.length);
  legend.replaceChildren(...names.map((name, i) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'ld-act';
    button.setAttribute('aria-pressed', 'false');
    const dot = document.createElement('i');
    dot.style.background = PALETTE[i];
    button.append(dot, name.slice(0, 40));
    button.onclick = () => {
      only = only === i ? null : i;
      [...legend.children].forEach((other, k) => other.setAttribute('aria-pressed', String(only === k)));
      redraw();
    };
    return button;
  }));
  if (colour.value === 'concepts') legend.textContent = 'Similar concepts have similar colours.';
  else if (table().words.length > PALETTE.length) legend.append(` ${table().words.length - PALETTE.length} more in grey`);
  redraw();
}

function seek() {
  const wanted = find.value.trim().toLowerCase();
  found = wanted ? new Set(map.models.keys()) : null;
  if (found) for (const i of [...found]) if (!`${map.names[i]} ${word(map.concepts, i)}`.toLowerCase().includes(wanted)) found.delete(i);
  said.textContent = found ? `${found.size} of ${map.models.length} models` : `${map.models.length} models`;
  redraw();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

canvas.addEventListener('pointerdown', (event) => {
  touches.set(event.pointerId, place(event));
  canvas.setPointerCapture(event.pointerId);
  drag = {from: place(event), moved: false, tapped: event.pointerType === 'touch' ? at : null};
});
canvas.addEventListener('pointermove', (event) => {
  const [x, y] = place(event);
  if (!touches.size) return point_at(nearest(x, y));
  const before = touches.get(event.pointerId);
  if (!before) return;
  if (touches.size === 2) {
    const other = [...touches].find(([id]) => id !== event.pointerId)[1];
    zoomBy(Math.hypot(x - other[0], y - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), (x + other[0]) / 2, (y + other[1]) / 2);
  } else if (drag.moved || Math.hypot(x - drag.from[0], y - drag.from[1]) > 5) {
    drag.moved = true;
    view.x -= (x - before[0]) / wide();
    view.y -= (y - before[1]) / high();
    point_at(-1);
  }
  touches.set(event.pointerId, [x, y]);
});
canvas.addEventListener('pointerup', (event) => {
  touches.delete(event.pointerId);
  if (!drag || drag.moved) return;
  const hit = nearest(...place(event)), again = drag.tapped === null || drag.tapped === hit;
  point_at(hit);
  if (again) open();
});
canvas.addEventListener('pointercancel', (event) => touches.delete(event.pointerId));
canvas.addEventListener('pointerleave', () => { if (!touches.size && document.activeElement !== canvas) point_at(-1); });
canvas.addEventListener('wheel', (event) => { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...place(event)); }, {passive: false});
canvas.addEventListener('keydown', (event) => {
  const keys = {
    ArrowLeft: () => walk(-1, 0), ArrowRight: () => walk(1, 0), ArrowUp: () => walk(0, -1), ArrowDown: () => walk(0, 1), Enter: open,
    '+': () => zoomBy(1.3), '=': () => zoomBy(1.3), '-': () => zoomBy(1 / 1.3), 0: reset, Escape: () => point_at(-1),
  };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
element.querySelector('.ld-in').onclick = () => zoomBy(1.4);
element.querySelector('.ld-out').onclick = () => zoomBy(1 / 1.4);
element.querySelector('.ld-all').onclick = reset;
colour.onchange = tell;
find.oninput = seek;
new ResizeObserver(redraw).observe(canvas);
new MutationObserver(redraw).observe(document.body, {attributes: true, attributeFilter: ['class']});

function load() {
  map = props.map ? JSON.parse(props.map) : {models: []};
  at = -1;
  if (map.models.length) { tell(); seek(); }
  redraw();
}
watch('map', load);
load();
