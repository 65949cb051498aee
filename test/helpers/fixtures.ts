import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const repository = fileURLToPath(new URL('../../', import.meta.url));
export const fixtureSources = join(repository, 'test/fixtures');

/** Set by the global setup for its workers when `test/fixtures/build` could not be written. */
export const directoryVariable = 'CLOISTER_FIXTURES';

/** Where the fixtures were compiled to. */
export function fixturesDirectory(): string {
  return process.env[directoryVariable] ?? join(fixtureSources, 'build');
}

export type FixtureName =
  /** Says what it sees: see `questions.ts`. */
  | 'probe'
  /** Exits with 0, has no C library. */
  | 'true'
  /** A script whose `#!` names no file. */
  | 'script-bad-interpreter'
  /** A dynamic ELF file whose dynamic linker does not exist. */
  | 'elf-bad-interpreter'
  /** An ELF file for the other one of x86-64 and aarch64. */
  | 'elf-other-arch'
  /** Executable text without `#!`. */
  | 'text-executable'
  /** Executable, of no bytes. */
  | 'empty-executable'
  /** A script without the permission to execute it. */
  | 'not-executable';

/** Its path on the host. */
export function fixture(name: FixtureName): string {
  return join(fixturesDirectory(), name);
}

/** Where the fixtures are bound in a sandbox. */
export const insideDirectory = '/probe';

/** Its path in a sandbox that has the fixtures bound. */
export function insideFixture(name: FixtureName): string {
  return `${insideDirectory}/${name}`;
}
