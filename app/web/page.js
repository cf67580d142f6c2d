() => {
  // Runs once when the page has loaded: copying, suggestions in the search box, and keys.
  document.addEventListener('click', async (click) => {
    const button = click.target.closest('[data-copy]');
    if (!button) return;
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch (_) { // pages that come without TLS from another machine have no clipboard
      const field = document.createElement('textarea');
      field.value = button.dataset.copy;
      document.body.append(field);
      field.select();
      document.execCommand('copy');
      field.remove();
    }
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = said; }, 1200);
  });
  // What is typed after the last plus or minus is completed; what stands before it stays.
  document.addEventListener('input', (input) => {
    const list = document.getElementById('ld-suggestions');
    if (!list || !input.target.matches('#ld-query input')) return;
    input.target.setAttribute('list', 'ld-suggestions');
    const [, before, last] = input.target.value.match(/^(.*(?:^|\s)[+-]\s)?(.*)$/s);
    const words = (list.dataset.words || '').split('\n').filter((word) => last && word.includes(last.toLowerCase()) && word !== last);
    words.sort((a, b) => b.startsWith(last) - a.startsWith(last));
    list.replaceChildren(...words.slice(0, 8).map((word) => new Option('', (before || '') + word)));
  });
  document.addEventListener('keydown', (key) => {
    if (key.key === '/' && !key.target.matches('input, textarea, [contenteditable]')) {
      document.querySelector('#ld-query input')?.focus();
      key.preventDefault();
    }
  });
}
