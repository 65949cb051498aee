#!/usr/bin/env node
// Makes lib/security/seccomp/syscall-numbers.ts from the kernel's own headers, as linux-libc-dev installs them (make
// headers_install): asm/unistd_64.h, asm/unistd_x32.h and asm/unistd_32.h for x86, asm-generic/unistd.h for arm64 and riscv64,
// each with the macros that arch/*/include/uapi/asm/unistd.h sets. Run on x86_64: scripts/syscall-numbers.mjs

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const generic = ['__ARCH_WANT_NEW_STAT', '__ARCH_WANT_SET_GET_RLIMIT', '__ARCH_WANT_SYS_CLONE3', '__ARCH_WANT_MEMFD_SECRET'];
const architectures = {
  x86_64: { header: 'asm/unistd_64.h', macros: [] },
  x32: { header: 'asm/unistd_x32.h', macros: ['__X32_SYSCALL_BIT=0'] },
  x86: { header: 'asm/unistd_32.h', macros: [] },
  aarch64: { header: 'asm-generic/unistd.h', macros: [...generic, '__ARCH_WANT_RENAMEAT', '__ARCH_WANT_TIME32_SYSCALLS'] },
  riscv64: { header: 'asm-generic/unistd.h', macros: generic },
};

// Newer than the headers of the machine that this is run on may be: scripts/syscall.tbl of Linux 6.18. From 424 on a call has one
// number everywhere.
const everywhere = {
  cachestat: 451,
  fchmodat2: 452,
  map_shadow_stack: 453,
  futex_wake: 454,
  futex_wait: 455,
  futex_requeue: 456,
  statmount: 457,
  listmount: 458,
  lsm_get_self_attr: 459,
  lsm_set_self_attr: 460,
  lsm_list_modules: 461,
  mseal: 462,
  setxattrat: 463,
  getxattrat: 464,
  listxattrat: 465,
  removexattrat: 466,
  open_tree_attr: 467,
  file_getattr: 468,
  file_setattr: 469,
};
// arch/x86/entry/syscalls/syscall_64.tbl; arch/riscv/include/uapi/asm/unistd.h
const somewhere = { x86_64: { uretprobe: 335, uprobe: 336 }, riscv64: { riscv_hwprobe: 258, riscv_flush_icache: 259 } };

function numbersOf(architecture) {
  const { header, macros } = architectures[architecture];
  const text = execFileSync('cc', ['-E', '-dM', ...macros.map((macro) => `-D${macro}`), '-include', header, '-x', 'c', '/dev/null'], { encoding: 'utf8' });
  const defined = new Map(
    [...text.matchAll(/^#define (__NR\w*) (.+)$/gm)].map(([, name, value]) => [name, value.replace(/[()]|__X32_SYSCALL_BIT \+/g, '').trim()]),
  );
  const value = (macro) => (/^\d+$/.test(macro) ? Number(macro) : defined.has(macro) ? value(defined.get(macro)) : undefined);
  const numbers = new Map();
  for (const name of defined.keys()) {
    const call = /^__NR_(\w+)$/.exec(name)?.[1];
    const number = value(name);
    if (call && number !== undefined && !/^(syscalls|arch_specific_syscall|Linux|SYSCALL_BASE)$/.test(call)) numbers.set(call, number);
  }
  for (const [name, number] of Object.entries({ ...everywhere, ...somewhere[architecture] })) numbers.set(name, number);
  return numbers;
}

const tables = Object.keys(architectures).map(numbersOf);
const names = [...new Set(tables.flatMap((table) => [...table.keys()]))].sort();
const rows = names.map((name) => [name, ...tables.map((table) => table.get(name) ?? '-')].join(' '));
writeFileSync(
  new URL('../lib/security/seccomp/syscall-numbers.ts', import.meta.url),
  `// Made by scripts/syscall-numbers.mjs from the kernel's headers (Linux 6.1's, and scripts/syscall.tbl of 6.18 for what is newer).

/** The columns of the table. x32 is without its bit, __X32_SYSCALL_BIT. */
export const architectureNames = ${JSON.stringify(Object.keys(architectures)).replaceAll('"', "'").replaceAll(',', ', ')} as const;

/** A call, and its number on each of them. */
export const syscallTable = \`
${rows.join('\n')}
\`;
`,
);
