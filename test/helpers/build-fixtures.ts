import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type FixtureName, fixtureSources } from './fixtures.js';

interface Recipe {
  readonly sources: readonly string[];
  readonly mode: number;
  make(target: string, directory: string): void;
}

const self = fileURLToPath(import.meta.url);
const probeFolder = join(fixtureSources, 'probe');
const probeSources = readdirSync(probeFolder)
  .filter((name) => /\.[ch]$/.test(name))
  .map((name) => join(probeFolder, name));
const trueSource = join(fixtureSources, 'true.S');

function compile(target: string, ...args: string[]): void {
  const compiler = process.env['CC'] ?? 'cc';
  try {
    execFileSync(compiler, [...args, '-o', target], { stdio: 'pipe', encoding: 'utf8' });
  } catch (cause) {
    const hint =
      'The fixtures need a C compiler and a static C library (Debian: gcc libc6-dev; Fedora: gcc glibc-static).';
    const printed = cause instanceof Error && 'stderr' in cause ? String(cause.stderr) : '';
    throw new Error(`${compiler} ${args.join(' ')} failed. ${hint}\n${printed}`, { cause });
  }
}

function text(contents: string, mode: number): Recipe {
  return { sources: [], mode, make: (target) => writeFileSync(target, contents) };
}

const x86 = 62;
const aarch64 = 183;
const machineOffset = 18;

function withOtherMachine(elf: Buffer): Buffer {
  elf.writeUInt16LE(elf.readUInt16LE(machineOffset) === x86 ? aarch64 : x86, machineOffset);
  return elf;
}

// In the order of making: one is made of another.
const recipes: Record<FixtureName, Recipe> = {
  probe: {
    sources: probeSources,
    mode: 0o755,
    make: (target) =>
      compile(
        target,
        ...['-std=c11', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', '-O1', '-static', '-pthread'],
        ...probeSources.filter((path) => path.endsWith('.c')),
      ),
  },
  true: {
    sources: [trueSource],
    mode: 0o755,
    make: (target) => compile(target, '-nostdlib', '-static', trueSource),
  },
  'elf-bad-interpreter': {
    sources: [trueSource],
    mode: 0o755,
    make: (target) => compile(target, '-nostdlib', '-pie', '-Wl,--dynamic-linker=/no/such/ld.so', trueSource),
  },
  'elf-other-arch': {
    sources: [trueSource],
    mode: 0o755,
    make: (target, directory) => writeFileSync(target, withOtherMachine(readFileSync(join(directory, 'true')))),
  },
  'script-bad-interpreter': text('#!/no/such/interpreter\n', 0o755),
  'text-executable': text('echo this is no script\n', 0o755),
  'empty-executable': text('', 0o755),
  'not-executable': text('#!/bin/sh\nexit 0\n', 0o644),
};

function modified(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function isStale(directory: string, name: string, recipe: Recipe): boolean {
  const built = modified(join(directory, name));
  return [self, ...recipe.sources].some((source) => modified(source) > built);
}

/** Those that are missing or older than what they are made of. */
export function staleFixtures(directory: string): string[] {
  return Object.entries(recipes)
    .filter(([name, recipe]) => isStale(directory, name, recipe))
    .map(([name]) => name);
}

/** Makes what is stale. Sandboxes of any user, and test runs beside this one, may use the directory meanwhile. */
export function buildFixtures(directory: string): void {
  mkdirSync(directory, { recursive: true });
  if (staleFixtures(directory).length > 0) chmodSync(directory, 0o755);
  for (const [name, recipe] of Object.entries(recipes)) {
    if (!isStale(directory, name, recipe)) continue;
    const unfinished = join(directory, `.${name}.${process.pid}`);
    try {
      recipe.make(unfinished, directory);
      chmodSync(unfinished, recipe.mode);
      renameSync(unfinished, join(directory, name));
    } finally {
      rmSync(unfinished, { force: true });
    }
  }
}
