() => {
  // What Gradio's components lack: runs by keyboard, words that lead to their sliders, alternative text, files dropped
  // on the image.
  const one = (selector) => document.querySelector(selector);

  // A slider acts when a key has moved it and rests, and a number beside it at Enter or when it is left.
  const resting = new Map();
  const release = (field, wait) => {
    clearTimeout(resting.get(field));
    resting.set(field, setTimeout(() => field.dispatchEvent(new PointerEvent('pointerup', {bubbles: true})), wait));
  };
  const MOVES = ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End', 'PageUp', 'PageDown'];
  const gradio = (field) => field.matches('input[type=range], input[type=number]') && field.dataset.kind === undefined
    && field.closest('#cross, #self, #joint, #threshold, #front');
  document.addEventListener('keyup', (event) => {
    if (gradio(event.target) && (MOVES.includes(event.key) || event.key === 'Enter')) release(event.target, 300);
  });
  document.addEventListener('change', (event) => {
    if (gradio(event.target) && event.target.type === 'number') release(event.target, 50);
  });

  // Ctrl+Enter runs from any field: the source from its own, else the edit.
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.stopPropagation();
    one(event.target.closest('#prompt, #go, #settings') ? '#generate' : '#apply').click();
  }, true);

  const write = (field, text) => {
    const setter = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set;
    setter.call(field, text);
    field.dispatchEvent(new Event('input', {bubbles: true}));
  };
  document.addEventListener('click', (event) => {
    const word = event.target.closest('.pw-match button[data-word]');
    const offer = event.target.closest('.pw-match button[data-from]');
    if (offer) {  // a known word instead of an unknown one
      const field = one(`#${offer.dataset.field} textarea`);
      const plain = offer.dataset.from.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
      const found = new RegExp(`(?<![\\p{L}\\p{N}])${plain}(?![\\p{L}\\p{N}])`, 'u');
      write(field, field.value.replace(found, () => offer.dataset.to));
      field.focus();
    } else if (word) {
      const names = word.dataset.word.split(/\s+/);
      const sliders = [...document.querySelectorAll('#strengths .pw-slider[id]')];
      const slider = sliders.find((made) => names.includes(made.firstChild.textContent.replace(/#\d+$/, '')));
      if (!slider) return;
      slider.scrollIntoView({block: 'center', behavior: 'smooth'});
      slider.querySelector('input[type=range]').focus({preventScroll: true});
    }
  });

  // Files dropped on the image are opened.
  const stage = () => one('#stage');
  document.addEventListener('dragover', (event) => {
    if (!stage() || !stage().contains(event.target)) return;
    event.preventDefault();
    stage().classList.add('pw-over');
  });
  for (const end of ['dragleave', 'drop', 'dragend']) {
    document.addEventListener(end, () => stage() && stage().classList.remove('pw-over'));
  }
  document.addEventListener('drop', (event) => {
    if (!stage() || !stage().contains(event.target) || !event.dataTransfer.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    const files = event.dataTransfer.files;
    const hand = (tries) => {
      const field = one('#upload input[type=file]');
      if (field) {
        field.files = files;
        field.dispatchEvent(new Event('change', {bubbles: true}));
        return;
      }
      const clear = one('#upload button[aria-label="Clear"], #upload button[aria-label="Remove this file"]');
      const closed = one('#opening > button:not(.open)');
      if (clear) clear.click(); else if (closed) closed.click();
      if (tries) setTimeout(() => hand(tries - 1), 200);
    };
    hand(10);
  }, true);

  // Alternative text: what the server says of the images that it shows.
  const describe = () => {
    const said = one('#alts i');
    const put = (selector, text) => document.querySelectorAll(selector).forEach((image) => {
      if (text && image.alt !== text) image.alt = text;
    });
    const {picture, before, after, heat, plot} = said ? said.dataset : {};
    put('#picture img', picture || 'Preview of the image');
    const pair = [...document.querySelectorAll('#compare img')];
    pair.forEach((image, index) => {
      const text = (index === 0 ? before : after) || 'Preview of the edit';
      if (image.alt !== text) image.alt = text;
    });
    put('#heat img', heat || 'Attention map');
    put('#plot img', plot || 'Plot');
    put('#seen img', 'What the network sees in the picture');
    put('#scene img', 'The picture that was dropped');
  };
  let soon = null;
  new MutationObserver(() => {
    if (soon === null) soon = setTimeout(() => { soon = null; describe(); }, 60);
  }).observe(document.body, {childList: true, subtree: true, attributes: true, attributeFilter: ['src', 'data-picture']});
}
