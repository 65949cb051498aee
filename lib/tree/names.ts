// Names of a tree are bytes; strings are only for people.

const slash = Buffer.from('/');

/** Paths inside a tree are relative, without a slash at either end; the tree itself is ''. */
export function join(directory: Buffer, name: Buffer): Buffer {
  return directory.length === 0 ? name : Buffer.concat([directory, slash, name]);
}

export function components(path: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let start = 0; start < path.length; ) {
    const end = path.indexOf(0x2f, start);
    names.push(path.subarray(start, end < 0 ? path.length : end));
    start = end < 0 ? path.length : end + 1;
  }
  return names;
}

/** Bytes that are not UTF-8 become U+FFFD. */
export function pathText(path: Uint8Array): string {
  return `/${Buffer.from(path.buffer, path.byteOffset, path.byteLength).toString('utf8')}`;
}

/** For messages: what a stranger has named must not reach a terminal as it is. */
export function printable(path: Uint8Array): string {
  const text = pathText(path);
  const short = text.length > 300 ? `${text.slice(0, 140)}…${text.slice(-140)}` : text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for
  return short.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}
