/** Files that other systems and programs execute, by their first bytes. */
const formats: readonly (readonly [magic: string, what: string])[] = [
  ['4d5a', 'a program for Windows'],
  ['cffaedfe', 'a program for macOS'],
  ['cefaedfe', 'a program for macOS'],
  ['0061736d', 'a WebAssembly module, which a runtime executes'],
  // A class file has its version there, at least 45; a universal binary of macOS the number of its architectures.
  ['cafebabe000000', 'Java bytecode, which `java` executes'],
  ['504b0304', 'a zip archive (a jar, for one)'],
  ['1f8b', 'a file that gzip has compressed'],
  ['efbbbf2321', "a script with a byte order mark before its '#!'"],
];

export function foreignFormat(head: Buffer): string | undefined {
  if (head.readUIntBE(0, Math.min(4, head.length)) === 0xcafebabe && head.length >= 8 && head.readUInt32BE(4) < 45) return 'a program for macOS';
  return formats.find(([magic]) => head.subarray(0, magic.length / 2).equals(Buffer.from(magic, 'hex')))?.[1];
}
