// Compiles the programs of the benchmark into bench/build/.

import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const bench = dirname(fileURLToPath(import.meta.url));
export const build = join(bench, 'build');
export const results = join(bench, 'results');
/** The program of every measurement: does nothing, needs no libc. */
export const program = join(build, 'true');

/** Makes one system call again and again. */
export const caller = join(build, 'calls');

const core = join(bench, '../csrc/core');
const limitSources = [join(bench, 'limit.cc'), join(core, 'plan_check.cc'), join(core, 'id_map.cc')];
const cxx = ['-std=c++20', '-O2', '-Wall', '-Wextra', '-Wno-missing-field-initializers', '-fno-stack-protector', '-pthread'];

export function compileAll() {
  mkdirSync(build, { recursive: true });
  mkdirSync(results, { recursive: true });
  // Small, so always anew: what they include lies in csrc/ and may have changed.
  run('cc', ['-nostdlib', '-static', '-no-pie', '-s', '-Wl,--build-id=none', '-o', program, join(bench, 'true.S')]);
  run('cc', ['-O2', '-static', '-s', '-o', caller, join(bench, 'calls.c')]);
  run('c++', [...cxx, '-o', join(build, 'limit'), ...limitSources]);
  run('c++', [...cxx, '-DTRACE', '-o', join(build, 'limit-trace'), ...limitSources]);
  statSync(program);
}

function run(command, args) {
  const name = process.env[command === 'cc' ? 'CC' : 'CXX'] ?? command;
  try {
    execFileSync(name, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  } catch (error) {
    throw new Error(`bench needs a C and a C++20 compiler: ${name} ${args.join(' ')}: ${error.message}`);
  }
}
