// What Landlock can take away: linux/landlock.h, and the ABI that brought each. docs/landlock.md has the table for people.

export interface FileRight {
  readonly name: string;
  readonly bit: number;
  readonly abi: number;
  /** Which list grants it; undefined: none does, wherever writing is restricted. */
  readonly list: 'read' | 'write' | 'execute' | undefined;
  /** Rules for what is no directory take only these: ACCESS_FILE in security/landlock/fs.c. */
  readonly ofFiles?: true;
}

export const fileRights: readonly FileRight[] = [
  { name: 'execute', bit: 2 ** 0, abi: 1, list: 'execute', ofFiles: true },
  { name: 'write-file', bit: 2 ** 1, abi: 1, list: 'write', ofFiles: true },
  { name: 'read-file', bit: 2 ** 2, abi: 1, list: 'read', ofFiles: true },
  { name: 'read-dir', bit: 2 ** 3, abi: 1, list: 'read' },
  { name: 'remove-dir', bit: 2 ** 4, abi: 1, list: 'write' },
  { name: 'remove-file', bit: 2 ** 5, abi: 1, list: 'write' },
  { name: 'make-char', bit: 2 ** 6, abi: 1, list: undefined },
  { name: 'make-dir', bit: 2 ** 7, abi: 1, list: 'write' },
  { name: 'make-reg', bit: 2 ** 8, abi: 1, list: 'write' },
  { name: 'make-sock', bit: 2 ** 9, abi: 1, list: 'write' },
  { name: 'make-fifo', bit: 2 ** 10, abi: 1, list: 'write' },
  { name: 'make-block', bit: 2 ** 11, abi: 1, list: undefined },
  { name: 'make-sym', bit: 2 ** 12, abi: 1, list: 'write' },
  { name: 'refer', bit: 2 ** 13, abi: 2, list: 'write' },
  { name: 'truncate', bit: 2 ** 14, abi: 3, list: 'write', ofFiles: true },
  { name: 'ioctl-dev', bit: 2 ** 15, abi: 5, list: 'write', ofFiles: true },
];

export const portRights = {
  bindTcp: { name: 'bind-tcp', bit: 1, abi: 4 },
  connectTcp: { name: 'connect-tcp', bit: 2, abi: 4 },
} as const;

export const scopes = {
  'abstract-unix-socket': { bit: 1, abi: 6 },
  signal: { bit: 2, abi: 6 },
} as const;

/** The first kernel of each ABI. */
export const kernelOfAbi: Readonly<Record<number, string>> = { 1: '5.13', 2: '5.19', 3: '6.2', 4: '6.7', 5: '6.10', 6: '6.12', 7: '6.15' };

export const rulePathBeneath = 1;
export const ruleNetPort = 2;

const right = (name: string): number => fileRights.find((candidate) => candidate.name === name)?.bit ?? 0;
export const readFile: number = right('read-file');
export const refer: number = right('refer');
export const ofFiles: number = fileRights.reduce((mask, { bit, ofFiles: fits }) => (fits ? mask | bit : mask), 0);
