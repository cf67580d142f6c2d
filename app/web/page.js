() => {
  // Runs once when the page has loaded: copy buttons, suggestions in the search box, and the key for search.
  document.addEventListener('click', async (event) => {
    const button = event.target.closest('[data-copy]');
    if (!button) return;
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch (_) { // browsers give no clipboard to pages without TLS from another machine
      const field = document.createElement('textarea');
      field.value = button.dataset.copy;
      document.body.append(field);
      field.select();
      document.execCommand('copy');
      field.remove();
    }
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = label; }, 1200);
  });
  // Suggestions complete the concept after the last plus or minus, and keep the text before it.
  document.addEventListener('input', (event) => {
    const list = document.getElementById('ld-suggestions');
    if (!list || !event.target.matches('#ld-query input')) return;
    event.target.setAttribute('list', 'ld-suggestions');
    const [, before, last] = event.target.value.match(/^(.*(?:^|\s)[+-]\s)?(.*)$/s);
    const words = (list.dataset.words || '').split('\n').filter((word) => last && word.includes(last.toLowerCase()) && word !== last);
    words.sort((a, b) => b.startsWith(last) - a.startsWith(last));
    list.replaceChildren(...words.slice(0, 8).map((word) => new Option('', (before || '') + word)));
  });
  // The key "/" moves to the search box.
  document.addEventListener('keydown', (event) => {
    if (event.key === '/' && !event.target.matches('input, textarea, [contenteditable]')) {
      document.querySelector('#ld-query input')?.focus();
      event.preventDefault();
    }
  });
}
