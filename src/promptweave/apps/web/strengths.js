// One row of sliders for each word. `props.value`: {words: [[name, strength, from, until], ...], single: true}.
const KINDS = [
  {label: (name) => name, low: -3, high: 5, step: 0.1},
  {label: (name) => `${name}: from`, low: 0, high: 1, step: 0.05},
  {label: (name) => `${name}: until`, low: 0, high: 1, step: 0.05},
];
let drawn = null;
let waiting = null;

function given() {
  return props.value && props.value.words ? props.value : {words: [], single: false};
}

function slider(index, kind) {
  const made = document.createElement('div');
  made.className = 'pw-slider';
  if (kind === 0) made.id = `strength-${index}`;
  const {label, low, high, step} = KINDS[kind];
  const said = label(given().words[index][0]);
  const title = document.createElement('span');
  title.textContent = said;
  title.dir = 'auto';
  made.append(title);
  for (const type of ['number', 'range']) {
    const field = document.createElement('input');
    Object.assign(field, {type, min: low, max: high, step});
    field.setAttribute('aria-label', type === 'range' ? said : `${said}, as a number`);
    field.dataset.index = index;
    field.dataset.kind = kind;
    made.append(field);
  }
  return made;
}

function build() {
  const {words, single} = given();
  const old = element.querySelector('details');
  const open = old !== null && old.open;
  const rows = document.createElement('div');
  rows.className = 'pw-sliders';
  words.forEach((_, index) => rows.append(slider(index, 0)));
  element.replaceChildren(rows);
  if (single && words.length) {
    const more = document.createElement('details');
    more.open = open;
    more.innerHTML = '<summary>Windows of single words</summary>'
      + '<p>A word from 0 until 1 follows the slider for all words.</p>';
    const grid = document.createElement('div');
    grid.className = 'pw-sliders';
    words.forEach((_, index) => grid.append(slider(index, 1), slider(index, 2)));
    more.append(grid);
    element.append(more);
  }
}

function fill(but) {
  const {words} = given();
  element.querySelectorAll('input').forEach((field) => {
    if (field === but) return;
    field.value = words[field.dataset.index][Number(field.dataset.kind) + 1];
  });
}

function draw() {
  const {words, single} = given();
  const now = JSON.stringify([words.map((word) => word[0]), single]);
  if (now !== drawn || (words.length && !element.querySelector('input'))) {
    drawn = now;
    build();
  }
  fill(null);
}

function moved(field) {
  const {low, high} = KINDS[field.dataset.kind];
  const value = Number(field.value);
  if (field.value === '' || !Number.isFinite(value)) return false;
  const words = given().words.map((word) => [...word]);
  words[field.dataset.index][Number(field.dataset.kind) + 1] = Math.min(high, Math.max(low, value));
  props.value = {...given(), words};
  return true;
}

element.addEventListener('input', (event) => {
  if (event.target.dataset.kind === undefined) return;
  if (moved(event.target)) fill(event.target);
});
element.addEventListener('change', (event) => {
  if (event.target.dataset.kind === undefined) return;
  moved(event.target);
  fill(null);
  clearTimeout(waiting);
  waiting = setTimeout(() => trigger('release'), 120);
});
watch('value', draw);
draw();
