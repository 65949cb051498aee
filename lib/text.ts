/** What a stranger has written, for a message: it must not reach a terminal as it is, nor fill it. */
export function harmless(text: string): string {
  const short = text.length > 300 ? `${text.slice(0, 140)}…${text.slice(-140)}` : text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for
  return short.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** Some of many such names. */
export function listed(names: readonly string[]): string {
  if (names.length === 0) return 'none';
  const some = names.slice(0, 10).map(harmless).join(', ');
  return names.length > 10 ? `${some} and ${names.length - 10} more` : some;
}
