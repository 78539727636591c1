// The form of a method: keeps its value ({method, values}) up to date, and lets boxes be drawn over the source image.
const COLOURS = ['#0d9488', '#d97706', '#7c3aed', '#dc2626', '#2563eb', '#65a30d'];
const SMALL = new Set(['a', 'an', 'the', 'of', 'in', 'on', 'at', 'to', 'and', 'with', 'next', 'photo']);
const fields = () => [...element.querySelectorAll('[data-field]')];
const checked = (field) => field.type === 'checkbox';
let chosen = '';

function collect() {
  const values = {};
  for (const field of fields()) {
    const usual = field.hasAttribute('data-usual');
    if (checked(field)) { if (field.checked !== usual) values[field.dataset.field] = field.checked; }
    else if (field.value.trim()) values[field.dataset.field] = field.value;
  }
  props.value = {method: props.value.method, values};
}

function fill() {
  const values = props.value.values || {};
  for (const field of fields()) {
    const value = values[field.dataset.field];
    if (checked(field)) field.checked = value ?? field.hasAttribute('data-usual');
    else field.value = value ?? '';
  }
  for (const slider of element.querySelectorAll('[data-slides]')) slide(slider.dataset.slides);
  for (const place of element.querySelectorAll('[data-draw]')) draw(place);
}

function slide(name) {
  const slider = element.querySelector(`[data-slides="${name}"]`);
  if (slider) slider.value = element.querySelector(`[data-field="${name}"]`).value || slider.dataset.usual;
}

// Boxes: lines WORD=LEFT,TOP,RIGHT,BOTTOM of a text field are the truth; they are drawn, and drawing writes them.
const area = (place) => element.querySelector(`[data-field="${place.dataset.draw}"]`);
const read = (text) => text.split('\n').map((line) => line.match(/^(.+)=([^=]+)$/)).filter(Boolean)
  .map(([, word, sides]) => [word.trim(), sides.split(',').map(Number)])
  .filter(([, sides]) => sides.length === 4 && sides.every(Number.isFinite));
const words = () => {
  const text = document.querySelector('#prompt textarea')?.value || '';
  const found = text.match(/[\p{L}\p{N}'-]+/gu) || [];
  return [...new Set(found)].filter((word) => !SMALL.has(word.toLowerCase()));
};

function source() {
  const pair = [...document.querySelectorAll('#compare img')].filter((image) => image.getAttribute('src'));
  if (pair.length && document.querySelector('#compare').checkVisibility()) return pair[0].src;
  return document.querySelector('#picture img')?.src || '';
}

function draw(place) {
  const known = words(), boxes = read(area(place).value);
  if (!known.includes(chosen)) chosen = known.find((word) => !boxes.some(([one]) => one === word)) || known.at(-1) || '';
  const image = source();
  const chips = known.map((word) => {
    const chip = document.createElement('button');
    Object.assign(chip, {type: 'button', className: 'pw-chip', textContent: word});
    chip.dataset.word = word;
    chip.setAttribute('aria-pressed', String(word === chosen));
    return chip;
  });
  let head = place.querySelector('.pw-chips'), canvas = place.querySelector('.pw-canvas');
  if (!canvas) {
    place.innerHTML = '<div class="pw-chips" role="group" aria-label="The word whose box is drawn"></div>'
      + '<div class="pw-canvas"><img alt="The source image, to draw boxes on" draggable="false"><span></span></div>';
    head = place.querySelector('.pw-chips');
    canvas = place.querySelector('.pw-canvas');
  }
  const focused = head.contains(document.activeElement);
  head.replaceChildren(...chips);
  if (focused) head.querySelector('[aria-pressed=true]')?.focus();
  const picture = canvas.querySelector('img');
  if (picture.getAttribute('src') !== image) image ? picture.setAttribute('src', image) : picture.removeAttribute('src');
  picture.hidden = !image;
  canvas.querySelector('span').textContent = `Drag to draw the box of ${chosen || 'a word of the source prompt'}`;
  canvas.querySelectorAll('div').forEach((box) => box.remove());
  boxes.forEach(([word, [left, top, right, bottom]], index) => {
    const box = document.createElement('div');
    box.style.cssText = `left:${left * 100}%;top:${top * 100}%;width:${(right - left) * 100}%;`
      + `height:${(bottom - top) * 100}%;border-color:${COLOURS[index % COLOURS.length]}`;
    const name = document.createElement('b');
    name.textContent = word;
    name.style.background = COLOURS[index % COLOURS.length];
    box.append(name);
    canvas.append(box);
  });
}

function put(place, box) {
  const text = area(place), sides = box.map((side) => Math.round(Math.min(1, Math.max(0, side)) * 100) / 100).join(',');
  const kept = text.value.split('\n').filter((line) => line.trim() && line.replace(/=[^=]*$/, '').trim() !== chosen);
  const before = text.value.split('\n').findIndex((line) => line.replace(/=[^=]*$/, '').trim() === chosen);
  kept.splice(before < 0 ? kept.length : before, 0, `${chosen}=${sides}`);
  text.value = kept.join('\n');
  text.rows = Math.max(2, kept.length);
}

element.addEventListener('pointerdown', (event) => {
  const canvas = event.target.closest('.pw-canvas');
  if (!canvas || !chosen || event.button) return;
  event.preventDefault();
  const place = canvas.closest('[data-draw]'), edge = canvas.getBoundingClientRect();
  const at = (e) => [(e.clientX - edge.left) / edge.width, (e.clientY - edge.top) / edge.height];
  const [x, y] = at(event);
  const move = (e) => {
    const [u, v] = at(e);
    if (Math.abs(u - x) * edge.width < 4 || Math.abs(v - y) * edge.height < 4) return;  // a click draws nothing
    put(place, [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)]);
    draw(place);
  };
  const end = () => {
    removeEventListener('pointermove', move);
    removeEventListener('pointerup', end);
    removeEventListener('pointercancel', end);
    collect();
  };
  addEventListener('pointermove', move);
  addEventListener('pointerup', end);
  addEventListener('pointercancel', end);
});

element.addEventListener('click', (event) => {
  const chip = event.target.closest('[data-word]');
  if (!chip) return;
  chosen = chip.dataset.word;
  draw(chip.closest('[data-draw]'));
});

element.addEventListener('input', (event) => {
  const {slides, field} = event.target.dataset;
  if (slides) element.querySelector(`[data-field="${slides}"]`).value = event.target.value;
  if (field) slide(field);
  const place = element.querySelector(`[data-draw="${field}"]`);
  if (place) draw(place);
  collect();
});
element.addEventListener('change', (event) => { if (event.target.dataset.slides) trigger('release'); });
element.addEventListener('keydown', (event) => {
  const line = event.target.tagName === 'INPUT' && event.target.type !== 'checkbox';
  if (event.key === 'Enter' && line) trigger('submit');
});

const redraw = () => { for (const place of element.querySelectorAll('[data-draw]')) draw(place); };
new MutationObserver((changes) => {
  if (changes.some(({target}) => target.closest?.('#picture, #compare'))) redraw();
}).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ['src', 'class']});
document.addEventListener('input', (event) => { if (event.target.closest?.('#prompt')) redraw(); });
watch('value', fill);
fill();
