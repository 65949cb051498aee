import { architectureNames, syscallTable } from './syscall-numbers.js';

export type Architecture = (typeof architectureNames)[number];

/** linux/audit.h: what the kernel calls the architecture of a call. x32 calls itself x86_64, and sets a bit in the number. */
export const auditArch: Readonly<Record<Architecture, number>> = {
  x86_64: 0xc000003e,
  x32: 0xc000003e,
  x86: 0x40000003,
  aarch64: 0xc00000b7,
  riscv64: 0xc00000f3,
};
export const x32Bit = 0x40000000;

/** Whose numbers a call of this process has. */
export const nativeArchitecture: Architecture = ({ x64: 'x86_64', arm64: 'aarch64', riscv64: 'riscv64' } as const)[process.arch as 'x64'] ?? 'x86_64';

let everyName: ReadonlySet<string> | undefined;
const numbers = new Map<Architecture, ReadonlyMap<string, number>>();
const names = new Map<Architecture, ReadonlyMap<number, string>>();

const rows = (): string[] => syscallTable.trim().split('\n');

/** Whether any architecture has a call of this name. */
export function isSyscall(name: string): boolean {
  everyName ??= new Set(rows().map((row) => row.slice(0, row.indexOf(' '))));
  return everyName.has(name);
}

export function syscallNumbers(architecture: Architecture): ReadonlyMap<string, number> {
  let known = numbers.get(architecture);
  if (!known) {
    const column = architectureNames.indexOf(architecture) + 1;
    const cells = rows().map((row) => row.split(' '));
    known = new Map(cells.flatMap((row) => (row[column] === '-' ? [] : [[row[0] as string, Number(row[column])]])));
    numbers.set(architecture, known);
  }
  return known;
}

export function syscallNames(architecture: Architecture): ReadonlyMap<number, string> {
  let known = names.get(architecture);
  if (!known) {
    known = new Map([...syscallNumbers(architecture)].map(([name, number]) => [number, name]));
    names.set(architecture, known);
  }
  return known;
}
